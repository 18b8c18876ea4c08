//! `regent reload`: the daemon reads its file again. What it can take without a restart it takes, after PostgreSQL has tried
//! it; what it cannot is named. A file that is wrong changes nothing.
//!
//! Not here: what the databases do with it (`engine`), and which keys those are (`config/written.rs`).

use super::Daemon;
use super::operator::answer;
use super::wakeup::Wakeup;
use crate::api::admin::{Request, Response};
use crate::config::{Config, Written};
use crate::engine::postgresql::PostgreSql;
use crate::types::ServiceName;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;

/// The file that the daemon read.
#[derive(Clone, Debug)]
pub struct Origin {
    pub path: PathBuf,
    /// What of it counts.
    pub written: Written,
}

/// What was taken of a new file.
struct Taken {
    config: Config,
    written: Written,
    response: Response,
}

impl Daemon {
    /// Begins; the answer comes when it is done. One at a time.
    pub(super) fn reload(&mut self, reply: mpsc::Sender<Response>) {
        if std::mem::replace(&mut self.reloads, true) {
            return answer(&reply, Response::Refused { reasons: vec!["another reload is under way".to_owned()] });
        }
        let (config, origin) = (self.config.clone(), self.origin.clone());
        let (engines, wakeups) = (self.shell.engines.clone(), self.shell.wakeups.clone());
        tokio::spawn(async move {
            let tell = |message| answer(&reply, Response::progress(message));
            let (taken, response) = match take(&config, &origin, &engines, tell).await {
                Ok(Taken { config, written, response }) => (Some((Arc::new(config), written)), response),
                Err(reasons) => (None, Response::Refused { reasons }),
            };
            // Before the answer: whoever has it finds what was taken in `status`.
            let _ = wakeups.send(Wakeup::Reloaded { taken });
            answer(&reply, response);
        });
    }

    /// What was taken counts from here on.
    pub(super) fn reloaded(&mut self, taken: Option<(Arc<Config>, Written)>) {
        self.reloads = false;
        if let Some((config, written)) = taken {
            let (taken, _) = self.origin.written.changes(&written);
            tracing::info!(file = %self.origin.path.display(), taken = taken.join(", "), "the file was read again");
            self.origin.written = written;
            self.config = config.clone();
            self.shell.config = config.clone();
            self.node.reconfigure(config);
            self.handle(crate::node::Event::Wake);
        }
    }
}

/// The signal by which daemons read their file again, as far as anybody remembers: the answer goes into the log.
pub(super) async fn on_signal(mut hangup: Signal, wakeups: mpsc::UnboundedSender<Wakeup>) {
    while hangup.recv().await.is_some() {
        let (reply, mut answers) = mpsc::channel(64);
        if wakeups.send(Wakeup::Operator(Request::Reload, reply)).is_err() {
            return;
        }
        while let Some(response) = answers.recv().await {
            if let Response::Refused { reasons } = response {
                tracing::error!(reasons = reasons.join("; "), "the file was not read again: nothing has changed");
            }
        }
    }
}

/// Takes what can be taken, or says why nothing is.
async fn take(
    config: &Config,
    origin: &Origin,
    engines: &BTreeMap<ServiceName, Arc<PostgreSql>>,
    tell: impl Fn(String),
) -> Result<Taken, Vec<String>> {
    let (new, written) = read(&origin.path)?;
    if new.node != config.node {
        return Err(vec![format!(
            "{} is the file of {}, and this is {}",
            origin.path.display(),
            new.node,
            config.node
        )]);
    }
    let mixed = mixed(config, &new);
    for (service, engine) in engines {
        tell(format!("PostgreSQL tries what the file says for {service}, on a server that is thrown away"));
        let tried = engine.try_out(&mixed.services[service].postgresql).await;
        // Whoever asks has changed something: also of what the databases read already.
        engine.look_at_files();
        tried.map_err(|error| vec![format!("service.{service}: {error}")])?;
    }
    let (mut waits, mut roles) = (Vec::new(), Vec::new());
    for (service, engine) in engines {
        tell(format!("the database of {service} takes it"));
        let taken = engine.take(mixed.services[service].postgresql.clone()).await;
        let taken = taken.map_err(|error| vec![format!("service.{service}: {error}")])?;
        let of_service = |what: String| format!("service.{service}: {what}");
        waits.extend(taken.waits.into_iter().map(of_service));
        roles.extend(taken.roles.into_iter().map(of_service));
    }
    let (at_once, later) = origin.written.changes(&written);
    let config = Config { hash: if later.is_empty() { new.hash } else { both(config.hash, new.hash) }, ..mixed };
    let response = done(&origin.path, [&at_once, &later, &waits, &roles]);
    Ok(Taken { config, written: origin.written.read_again(&written), response })
}

fn read(path: &Path) -> Result<(Config, Written), Vec<String>> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| vec![format!("the configuration file {} cannot be read: {error}", path.display())])?;
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let config = Config::parse(&text, &path.display().to_string(), None, &host);
    let config = config.map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    Ok((config, Written::of(&text)))
}

/// The configuration that counts, with what is read again of another one.
fn mixed(config: &Config, new: &Config) -> Config {
    let mut mixed = config.clone();
    for (name, service) in &mut mixed.services {
        if let Some(new) = new.services.get(name) {
            service.postgresql.parameters.clone_from(&new.postgresql.parameters);
            service.postgresql.hba.clone_from(&new.postgresql.hba);
            service.postgresql.replication_password_file.clone_from(&new.postgresql.replication_password_file);
        }
    }
    mixed
}

/// A node that has taken one file in part runs with another than those that have read it whole: but with the same as those
/// that did as it did.
fn both(before: u64, new: u64) -> u64 {
    before.rotate_left(1) ^ new
}

fn done(path: &Path, [at_once, later, waits, roles]: [&Vec<String>; 4]) -> Response {
    let message = match at_once.len() {
        0 => format!("nothing of {} that is read again has changed", path.display()),
        1 => "took one change".to_owned(),
        more => format!("took {more} changes"),
    };
    let taken = at_once.iter().map(|key| format!("taken: {key}"));
    let waits = waits.iter().map(|name| format!("the next start of the database changes {name}"));
    let later = later.iter().map(|key| format!("needs a restart of regent: {key}"));
    Response::Done { message, details: taken.chain(roles.iter().cloned()).chain(waits).chain(later).collect() }
}
