//! The FenceAgentAPI of ClusterLabs, as the three agents share it: what an agent declares about itself, how it is
//! asked, and how it answers.
//!
//! Not here: what any agent does to the world, and how regent starts an agent (`src/action/fence.rs`). The API:
//! <https://github.com/ClusterLabs/fence-agents/blob/main/doc/FenceAgentAPI.md>.
//!
//! Two deliberate departures from the ecosystem's shared library, both towards safety: an agent that is given no
//! action refuses (the library reboots), and a password is not taken from the command line (everybody can read it).

#![allow(dead_code, reason = "each of the three agents uses its part of the contract")]

pub mod command;
mod input;
mod page;
pub mod standing;

pub use regent::errors::with_causes;
use std::collections::BTreeMap;
use std::error::Error;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

/// An action of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    On,
    Off,
    /// Never offered by an agent that does not control power: the API forbids it for fabric fencing.
    Reboot,
    Status,
    Monitor,
    Metadata,
    Manpage,
    ValidateAll,
    /// Not of the API: which fences have something in force on this host. For agents that act on the host they run on.
    InForce,
}

impl Action {
    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Action::On => "on",
            Action::Off => "off",
            Action::Reboot => "reboot",
            Action::Status => "status",
            Action::Monitor => "monitor",
            Action::Metadata => "metadata",
            Action::Manpage => "manpage",
            Action::ValidateAll => "validate-all",
            Action::InForce => "in-force",
        }
    }
}

/// What an option's value must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Boolean,
    Integer,
    /// A duration in whole or fractional seconds.
    Second,
    /// Text that is taken from standard input alone.
    Secret,
}

/// One option of an agent.
#[derive(Clone, Copy, Debug)]
pub struct Opt {
    pub name: &'static str,
    /// Its letter on the command line.
    pub short: Option<char>,
    pub kind: Kind,
    pub default: Option<&'static str>,
    /// Needed by every action that touches the device.
    pub required: bool,
    /// The name that the API used for it in earlier times; accepted, and listed as deprecated.
    pub old: Option<&'static str>,
    pub about: &'static str,
}

impl Opt {
    /// An optional text without default; the other fields are set with struct update syntax.
    pub const fn text(name: &'static str, about: &'static str) -> Opt {
        Opt { name, short: None, kind: Kind::Text, default: None, required: false, old: None, about }
    }
}

/// Options that every agent has.
const COMMON: &[Opt] = &[
    Opt { short: Some('o'), old: Some("option"), ..Opt::text("action", "What to do. There is no default action") },
    Opt { short: Some('n'), ..Opt::text("nodename", "Name of the node that is fenced") },
    Opt {
        kind: Kind::Second,
        default: Some("0"),
        ..Opt::text("delay", "Wait so many seconds before on, off or reboot begins")
    },
    Opt { short: Some('v'), kind: Kind::Boolean, ..Opt::text("verbose", "Say on standard error what is done") },
    Opt { short: Some('V'), kind: Kind::Boolean, ..Opt::text("version", "Print the version and exit") },
    Opt { short: Some('h'), kind: Kind::Boolean, ..Opt::text("help", "Print this help and exit") },
];

/// What an agent declares about itself.
pub struct Spec {
    pub name: &'static str,
    pub shortdesc: &'static str,
    pub longdesc: &'static str,
    /// Its own options, besides the common ones.
    pub options: &'static [Opt],
    pub actions: &'static [Action],
    /// The golden file that `metadata` prints.
    pub metadata: &'static str,
}

impl Spec {
    /// Every option, the common ones first.
    fn all(&self) -> impl Iterator<Item = &'static Opt> {
        COMMON.iter().chain(self.options.iter())
    }

    fn find(&self, name: &str) -> Option<&'static Opt> {
        self.all().find(|o| o.name == name || o.old == Some(name))
    }
}

/// A valid request: an action and its options, defaults filled in.
pub struct Request {
    pub action: Action,
    values: BTreeMap<&'static str, String>,
}

impl Request {
    /// The value of an option, its default included. Empty counts as not given.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    /// The items of a comma-separated option; none when it was not given.
    pub fn list(&self, name: &str) -> Vec<&str> {
        self.text(name).unwrap_or("").split(',').map(str::trim).filter(|item| !item.is_empty()).collect()
    }

    /// The value of a boolean option; absent is false.
    pub fn flag(&self, name: &str) -> bool {
        self.text(name).and_then(input::boolean).unwrap_or(false)
    }

    /// The value of an option of kind [`Kind::Second`]; absent is zero.
    pub fn seconds(&self, name: &str) -> Duration {
        self.text(name).and_then(input::seconds).unwrap_or_default()
    }
}

/// How an action that did its work ends.
#[derive(Debug)]
pub enum Answer {
    /// Exit status 0, and what there is to say.
    Done(String),
    /// `status`: exit status 0.
    On(String),
    /// `status`: exit status 2.
    Off(String),
}

/// The body of an agent's `main`: reads the request, answers what needs no device, and hands the rest to `act`.
/// Exit status: 0 done or on, 2 `status` found it off, 1 everything else.
pub fn run<F>(spec: &Spec, act: F) -> ExitCode
where
    F: AsyncFnOnce(&Request) -> Result<Answer, Box<dyn Error>>,
{
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.is_empty() && std::io::stdin().is_terminal() {
        eprintln!("{}", page::help(spec));
        return ExitCode::FAILURE;
    }
    let (given, warnings) = match input::read(spec, &arguments) {
        Ok(read) => read,
        Err(error) => return failed(spec, &error),
    };
    for warning in warnings {
        eprintln!("{}: warning: {warning}", spec.name);
    }
    if given.get("help").and_then(|v| input::boolean(v)) == Some(true) {
        println!("{}", page::help(spec));
        return ExitCode::SUCCESS;
    }
    if given.get("version").and_then(|v| input::boolean(v)) == Some(true) {
        println!("{} {}", spec.name, env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let request = match input::check(spec, given) {
        Ok(request) => request,
        Err(error) => return failed(spec, &error),
    };
    match request.action {
        Action::Metadata => print!("{}", spec.metadata),
        Action::Manpage => print!("{}", page::manpage(spec)),
        _ => return perform(spec, &request, act),
    }
    ExitCode::SUCCESS
}

/// Runs `act` on a single-threaded runtime and turns its answer into an exit status.
fn perform<F>(spec: &Spec, request: &Request, act: F) -> ExitCode
where
    F: AsyncFnOnce(&Request) -> Result<Answer, Box<dyn Error>>,
{
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(spec, &error),
    };
    let answer = runtime.block_on(async {
        if matches!(request.action, Action::On | Action::Off | Action::Reboot) {
            tokio::time::sleep(request.seconds("delay")).await;
        }
        act(request).await
    });
    match answer {
        Ok(Answer::Done(text)) | Ok(Answer::On(text)) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Answer::Off(text)) => {
            println!("{text}");
            ExitCode::from(2)
        }
        Err(error) => failed(spec, error.as_ref()),
    }
}

fn failed(spec: &Spec, error: &dyn Error) -> ExitCode {
    eprintln!("{}: {}", spec.name, with_causes(error));
    ExitCode::FAILURE
}

/// Compares the golden file with what the table of options says; `REWRITE=1` writes it anew.
#[cfg(test)]
pub fn check_golden_metadata(spec: &Spec, file: &str) {
    let expected = page::metadata(spec);
    if std::env::var_os("REWRITE").is_some() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        std::fs::write(&path, &expected).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        return;
    }
    assert!(spec.metadata == expected, "{file} differs from the options; REWRITE=1 writes it anew:\n{expected}");
}
