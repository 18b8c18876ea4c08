//! One BMC, spoken to through ipmitool.
//!
//! ipmitool gets the password in its environment (which only root and its own user can read), never as an argument.
//! It tells neither a wrong password nor a silent BMC apart unless it is asked to be verbose, so it always is.

use crate::contract::Request;
use crate::contract::command::{self, CommandError, Ended};
use crate::password::{self, PasswordError};
use std::fmt;
use std::time::Duration;

/// The power of a host, as its BMC tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    On,
    Off,
}

impl fmt::Display for Power {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Power::On => "on",
            Power::Off => "off",
        })
    }
}

/// Why a BMC could not be used.
#[derive(Debug, thiserror::Error)]
pub enum BmcError {
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("option privlvl is {given:?}: expected callback, user, operator or administrator")]
    Privilege { given: String },
    #[error("the BMC {address} refuses the login of user {username:?}: wrong user, password or privilege level")]
    Login { address: String, username: String },
    #[error("no session with the BMC {address}: it does not answer, or refuses the login ({said})")]
    NoSession { address: String, said: String },
    #[error("the BMC {address} refuses the order: {said}")]
    Refused { address: String, said: String },
    #[error("the BMC {address} gave an answer that is neither on nor off: {said:?}")]
    Unclear { address: String, said: String },
    #[error("the BMC {address} has GUID {found}, expected {expected}: it belongs to another host, nothing was done")]
    OtherHost { address: String, expected: String, found: String },
}

/// How to reach one BMC.
pub struct Bmc {
    program: String,
    arguments: Vec<String>,
    address: String,
    username: String,
    password: Option<String>,
    guid: Option<String>,
    limit: Duration,
    verbose: bool,
}

impl Bmc {
    /// Takes the options apart and fetches the password.
    pub async fn from_request(request: &Request) -> Result<Bmc, BmcError> {
        let text = |name: &str| request.text(name).unwrap_or_default().to_owned();
        let privilege = text("privlvl").to_ascii_uppercase();
        if !["CALLBACK", "USER", "OPERATOR", "ADMINISTRATOR"].contains(&privilege.as_str()) {
            return Err(BmcError::Privilege { given: text("privlvl") });
        }
        let lanplus = request.flag("lanplus");
        let mut arguments = vec!["-v".to_owned(), "-I".to_owned()];
        arguments.push(if lanplus { "lanplus" } else { "lan" }.to_owned());
        let whole_seconds = request.seconds("ipmitool_timeout").as_secs().max(1).to_string();
        for (flag, value) in [
            ("-H", text("ip")),
            ("-p", text("ipport")),
            ("-U", text("username")),
            ("-L", privilege),
            ("-N", whole_seconds),
            ("-R", text("ipmitool_retries")),
        ] {
            arguments.extend([flag.to_owned(), value]);
        }
        if lanplus {
            arguments.extend(["-C".to_owned(), text("cipher")]);
        }
        arguments.push("-E".to_owned());
        Ok(Bmc {
            program: text("ipmitool_path"),
            arguments,
            address: text("ip"),
            username: text("username"),
            password: password::from_request(request).await?,
            guid: request.text("guid").map(str::to_owned),
            limit: request.seconds("shell_timeout"),
            verbose: request.flag("verbose"),
        })
    }

    async fn call(&self, words: &[&str]) -> Result<Ended, BmcError> {
        let arguments = self.arguments.iter().map(String::as_str).chain(words.iter().copied());
        let mut program = command::program(&self.program, arguments);
        program.env("IPMI_PASSWORD", self.password.as_deref().unwrap_or_default());
        // It looks for its table of vendors there; without a home it says so on every call.
        program.env("HOME", "/");
        let ended = command::run(program, "", self.limit).await?;
        if self.verbose {
            eprintln!("ipmitool {}: {}: {}", words.join(" "), ended.status, ended.stderr.trim());
        }
        if ended.stderr.contains("Unable to establish") {
            return Err(self.no_session(&ended));
        }
        Ok(ended)
    }

    /// Tells a refused login from silence, where ipmitool's words allow it.
    fn no_session(&self, ended: &Ended) -> BmcError {
        let refused = ["HMAC is invalid", "unauthorized name", "Activate Session error", "insufficient privilege"];
        let address = self.address.clone();
        if refused.iter().any(|words| ended.stderr.contains(words)) {
            return BmcError::Login { address, username: self.username.clone() };
        }
        let said = ended.stderr.lines().rfind(|line| line.contains("error")).unwrap_or("no answer");
        BmcError::NoSession { address, said: said.trim().to_owned() }
    }

    /// Orders the power on or off. The order is taken when this returns, not carried out.
    pub async fn order(&self, wanted: Power) -> Result<(), BmcError> {
        let word = if wanted == Power::Off { "off" } else { "on" };
        let ended = self.call(&["chassis", "power", word]).await?;
        match ended.success(&self.program) {
            Ok(_) => Ok(()),
            Err(error) => Err(BmcError::Refused { address: self.address.clone(), said: error.to_string() }),
        }
    }

    /// What the BMC says about the power now.
    pub async fn power(&self) -> Result<Power, BmcError> {
        let said = self.call(&["chassis", "power", "status"]).await?.success(&self.program)?;
        match said.lines().map(str::trim).find(|line| line.starts_with("Chassis Power is ")) {
            Some("Chassis Power is on") => Ok(Power::On),
            Some("Chassis Power is off") => Ok(Power::Off),
            _ => Err(BmcError::Unclear { address: self.address.clone(), said: said.trim().to_owned() }),
        }
    }

    /// Compares the GUID of the BMC with the expected one, when one was given.
    pub async fn check_guid(&self) -> Result<(), BmcError> {
        let Some(expected) = &self.guid else { return Ok(()) };
        let said = self.call(&["mc", "guid"]).await?.success(&self.program)?;
        let found = said
            .lines()
            .find(|line| line.starts_with("System GUID"))
            .and_then(|line| line.split_once(':'))
            .map_or("", |(_, value)| value.trim());
        if digits(found) == digits(expected) {
            return Ok(());
        }
        Err(BmcError::OtherHost {
            address: self.address.clone(),
            expected: expected.clone(),
            found: if found.is_empty() { "none".to_owned() } else { found.to_owned() },
        })
    }
}

/// The hexadecimal digits of a GUID, however it is punctuated.
fn digits(guid: &str) -> String {
    guid.chars().filter(char::is_ascii_hexdigit).map(|c| c.to_ascii_lowercase()).collect()
}
