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
    #[error("the BMC {address} has no free session: others hold all of them ({said})")]
    NoFreeSession { address: String, said: String },
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

    /// One run of ipmitool: one session. `exec` takes several commands from standard input.
    async fn call(&self, words: &[&str], input: &str) -> Result<Ended, BmcError> {
        let arguments = self.arguments.iter().map(String::as_str).chain(words.iter().copied());
        let mut program = command::program(&self.program, arguments);
        program.env("IPMI_PASSWORD", self.password.as_deref().unwrap_or_default());
        // It looks for its table of vendors there; without a home it says so on every call.
        program.env("HOME", "/");
        let ended = command::run(program, input, self.limit).await?;
        if self.verbose {
            let commands = format!("{} {}", words.join(" "), input.trim().replace('\n', "; "));
            eprintln!("ipmitool {commands}: {}: {}", ended.status, ended.stderr.trim());
        }
        if ended.stderr.contains("Unable to establish") {
            return Err(self.no_session(&ended));
        }
        Ok(ended)
    }

    /// Tells a refused login, and a BMC that is busy, from silence, where ipmitool's words allow it.
    fn no_session(&self, ended: &Ended) -> BmcError {
        let refused = ["HMAC is invalid", "unauthorized name", "Activate Session error", "insufficient privilege"];
        let address = self.address.clone();
        if refused.iter().any(|words| ended.stderr.contains(words)) {
            return BmcError::Login { address, username: self.username.clone() };
        }
        let busy = ["insufficient resources for session", "No session slot", "No slot available", "Out of space"];
        if let Some(said) = ended.stderr.lines().find(|line| busy.iter().any(|words| line.contains(words))) {
            return BmcError::NoFreeSession { address, said: said.trim().to_owned() };
        }
        let said = ended.stderr.lines().rfind(|line| line.contains("error")).unwrap_or("no answer");
        BmcError::NoSession { address, said: said.trim().to_owned() }
    }

    /// Orders the power on or off, and looks for the first time in the same session: opening one takes longer than
    /// both. The order is taken when this returns, and perhaps not carried out yet. `None`: that look failed.
    pub async fn order(&self, wanted: Power) -> Result<Option<Power>, BmcError> {
        let commands = format!("chassis power {wanted}\nchassis power status\n");
        let ended = self.call(&["exec", "/dev/stdin"], &commands).await?;
        if !ended.stdout.contains("Chassis Power Control: ") {
            let refusal = ended.stderr.lines().find(|line| line.contains("failed")).unwrap_or("it gave no reason");
            return Err(BmcError::Refused { address: self.address.clone(), said: refusal.trim().to_owned() });
        }
        Ok(power_in(&ended.stdout))
    }

    /// What the BMC says about the power now.
    pub async fn power(&self) -> Result<Power, BmcError> {
        let said = self.call(&["chassis", "power", "status"], "").await?.success(&self.program)?;
        let unclear = || BmcError::Unclear { address: self.address.clone(), said: said.trim().to_owned() };
        power_in(&said).ok_or_else(unclear)
    }

    /// Compares the GUID of the BMC with the expected one, when one was given.
    pub async fn check_guid(&self) -> Result<(), BmcError> {
        let Some(expected) = &self.guid else { return Ok(()) };
        let said = self.call(&["mc", "guid"], "").await?.success(&self.program)?;
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

/// The power that ipmitool's output names; only its exact words count.
fn power_in(said: &str) -> Option<Power> {
    match said.lines().map(str::trim).find(|line| line.starts_with("Chassis Power is ")) {
        Some("Chassis Power is on") => Some(Power::On),
        Some("Chassis Power is off") => Some(Power::Off),
        _ => None,
    }
}

/// The hexadecimal digits of a GUID, however it is punctuated.
fn digits(guid: &str) -> String {
    guid.chars().filter(char::is_ascii_hexdigit).map(|c| c.to_ascii_lowercase()).collect()
}
