//! `fence_regent_ipmi`: cuts the power of a host through its BMC, and looks until the BMC says that it is off.
//!
//! What it proves: the BMC at the given address says "Chassis Power is off". What it does not prove: that this BMC is
//! the one of the right host (give `guid` for that), or that the BMC tells the truth (regent's own check does that).
//!
//! It is quick: the first look comes right after the order, and the next ones every few ten milliseconds.

#![expect(
    clippy::disallowed_methods,
    reason = "a program of its own that lives for one action: its caller keeps the deadline"
)]

#[path = "../contract/mod.rs"]
mod contract;
mod ipmitool;
mod password;

use contract::{Action, Answer, Kind, Opt, Request, Spec};
use ipmitool::{Bmc, BmcError, Power};
use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

const SPEC: Spec = Spec {
    name: "fence_regent_ipmi",
    shortdesc: "Power fencing through IPMI, verified",
    longdesc: "fence_regent_ipmi cuts a host's power through its BMC (by ipmitool) and reports success only once the \
               BMC says that the host is off. The password comes from standard input, a file or a script, and is \
               never put on a command line.",
    options: &[
        Opt { short: Some('a'), old: Some("ipaddr"), required: true, ..Opt::text("ip", "Address or name of the BMC") },
        Opt {
            short: Some('u'),
            kind: Kind::Integer,
            default: Some("623"),
            ..Opt::text("ipport", "UDP port of the BMC")
        },
        Opt { short: Some('l'), old: Some("login"), ..Opt::text("username", "User of the BMC") },
        Opt { kind: Kind::Secret, old: Some("passwd"), ..Opt::text("password", "Password of that user") },
        Opt::text("password_file", "File whose first line is the password; not for others to read"),
        Opt {
            short: Some('S'),
            old: Some("passwd_script"),
            ..Opt::text("password_script", "Program whose first line of output is the password")
        },
        Opt {
            short: Some('P'),
            kind: Kind::Boolean,
            default: Some("1"),
            ..Opt::text("lanplus", "Use IPMI v2.0 (lanplus); without it the password is hardly protected")
        },
        Opt {
            short: Some('C'),
            kind: Kind::Integer,
            default: Some("3"),
            ..Opt::text("cipher", "Cipher suite of lanplus; 17 where the BMC offers it")
        },
        Opt {
            short: Some('L'),
            default: Some("administrator"),
            ..Opt::text("privlvl", "Privilege level: callback, user, operator or administrator")
        },
        Opt::text("guid", "System GUID that the BMC must answer with; another one bars every action"),
        Opt {
            kind: Kind::Second,
            default: Some("20"),
            ..Opt::text("power_timeout", "How long the host may take to be seen off, or on")
        },
        Opt {
            kind: Kind::Second,
            default: Some("5"),
            ..Opt::text("shell_timeout", "How long one call of ipmitool may take")
        },
        Opt {
            kind: Kind::Second,
            default: Some("1"),
            ..Opt::text("ipmitool_timeout", "How long ipmitool waits for one answer, in whole seconds (its -N)")
        },
        Opt {
            kind: Kind::Integer,
            default: Some("1"),
            ..Opt::text("ipmitool_retries", "How often ipmitool asks again (its -R)")
        },
        Opt { default: Some("ipmitool"), ..Opt::text("ipmitool_path", "The ipmitool program") },
    ],
    actions: &[
        Action::On,
        Action::Off,
        Action::Reboot,
        Action::Status,
        Action::Monitor,
        Action::Metadata,
        Action::Manpage,
        Action::ValidateAll,
    ],
    metadata: include_str!("metadata.xml"),
};

/// Pauses between two looks: short while a quick BMC may be done at any moment, longer afterwards.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The device was reached, and did not do it.
#[derive(Debug, thiserror::Error)]
#[error("the BMC took the order, but the host was not seen {wanted} within {limit:?} (last answer: {last})")]
struct NotReached {
    wanted: Power,
    limit: Duration,
    last: String,
}

fn main() -> ExitCode {
    contract::run(&SPEC, act)
}

async fn act(request: &Request) -> Result<Answer, Box<dyn Error>> {
    let bmc = Bmc::from_request(request).await?;
    if request.action == Action::ValidateAll {
        return Ok(Answer::Done("Success: the options are valid".to_owned()));
    }
    bmc.check_guid().await?;
    let limit = request.seconds("power_timeout");
    match request.action {
        Action::Off => Ok(Answer::Done(reach(&bmc, Power::Off, limit).await?)),
        Action::On => Ok(Answer::Done(reach(&bmc, Power::On, limit).await?)),
        Action::Reboot => {
            let mut text = reach(&bmc, Power::Off, limit).await?;
            // The API: once off has worked, a failed on is no failure of reboot.
            match reach(&bmc, Power::On, limit).await {
                Ok(on) => text = format!("{text}\n{on}"),
                Err(error) => eprintln!("{}: off worked, on did not: {error}", SPEC.name),
            }
            Ok(Answer::Done(text))
        }
        Action::Monitor => Ok(Answer::Done(format!("Monitor: the BMC answers, power is {}", bmc.power().await?))),
        _ => Ok(match bmc.power().await? {
            Power::On => Answer::On("Status: ON".to_owned()),
            Power::Off => Answer::Off("Status: OFF".to_owned()),
        }),
    }
}

/// Orders the state and looks until it is there. An order that the BMC refuses is no failure when the state is there
/// already: some BMCs refuse to switch off what is off.
async fn reach(bmc: &Bmc, wanted: Power, limit: Duration) -> Result<String, Box<dyn Error>> {
    let refused = match bmc.order(wanted).await {
        Ok(Some(power)) if power == wanted => return Ok(format!("Success: the host is seen {wanted}")),
        Ok(_) => None,
        Err(error @ BmcError::Refused { .. }) => Some(error),
        Err(error) => return Err(error.into()),
    };
    let mut last = "none".to_owned();
    let looked = tokio::time::timeout(limit, async {
        let mut pause = FIRST_PAUSE;
        loop {
            match bmc.power().await {
                Ok(power) if power == wanted => return true,
                // It will not change: nothing was ordered.
                Ok(_) if refused.is_some() => return false,
                Ok(power) => last = power.to_string(),
                // A BMC may be deaf for a moment while it switches; only the time limit ends this.
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    })
    .await;
    match (looked, refused) {
        (Ok(true), None) => Ok(format!("Success: the host is seen {wanted}")),
        (Ok(true), Some(_)) => Ok(format!("Success: the host was {wanted} already")),
        (Ok(false), Some(error)) => Err(error.into()),
        _ => Err(NotReached { wanted, limit, last }.into()),
    }
}

#[cfg(test)]
#[test]
fn the_metadata_is_what_the_options_say() {
    contract::check_golden_metadata(&SPEC, "fence-agents/ipmi/metadata.xml");
}
