//! `regent switchover`: the primary moves in order, losing nothing. What the move would meet is asked for first, as by a dry
//! run, and told before it begins; it holds the move up for no longer than that takes, and keeps it from nothing.

use super::verb::{Waiting, perform};
use super::{Common, Exit, locate, output, verb};
use crate::api::admin::{Request, Response};
use crate::api::client;
use crate::types::{NodeName, ServiceName, Span};
use std::path::Path;
use std::time::Duration;

/// How long a move that was ordered waits for what it would meet.
const LOOKS_FOR: Duration = Duration::from_secs(2);

#[derive(clap::Args)]
pub struct Arguments {
    /// The new primary [default: the best candidate]
    #[arg(long, value_name = "NODE")]
    to: Option<NodeName>,
    /// Which service, where there are several
    #[arg(long, value_name = "SERVICE")]
    service: Option<ServiceName>,
    /// Print the plan and every check, and touch nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    waiting: Waiting,
}

pub fn run(common: &Common, arguments: Arguments) -> anyhow::Result<Exit> {
    let Arguments { to, service, dry_run, waiting } = arguments;
    if !dry_run {
        let socket = locate::socket(common)?;
        let look = Request::Switchover { service: service.clone(), to: to.clone(), dry_run: true };
        for warning in verb::block_on(async { Ok(warnings(&socket, &look).await) })? {
            match common.json {
                true => output::say_json(&Response::Progress { message: warning, warning: true }),
                false => output::warn(&warning),
            }
        }
    }
    perform(common, &waiting, &Request::Switchover { service, to, dry_run })
}

/// What a dry run warns of. What it refuses, the order itself is refused for.
async fn warnings(socket: &Path, look: &Request) -> Vec<String> {
    match client::ask(socket, look, LOOKS_FOR, |_| ()).await {
        Ok(Response::Plan { checks, .. }) => {
            checks.into_iter().filter(|check| check.warning).map(|check| check.what).collect()
        }
        Err(client::AskError::TimedOut { .. }) => {
            vec![format!("what the move would meet is not known: no answer within {}", Span(LOOKS_FOR))]
        }
        // Whatever that is, the order itself comes to the same.
        Ok(_) | Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::admin::Check;
    use crate::api::socket::AdminSocket;
    use std::path::PathBuf;
    use tokio::sync::mpsc;

    fn look() -> Request {
        Request::Switchover { service: None, to: None, dry_run: true }
    }

    /// Asks a daemon that answers so; `None`: never.
    async fn told(answer: Option<Response>) -> Vec<String> {
        let folder = tempfile::tempdir().expect("a folder");
        let socket: PathBuf = folder.path().join("admin.sock");
        let (requests, mut asked) = mpsc::channel(4);
        let bound = AdminSocket::bind(&socket).await.expect("a fresh folder");
        tokio::spawn(bound.serve(requests));
        let daemon = tokio::spawn(async move {
            let (request, answers) = asked.recv().await.expect("a request");
            assert_eq!(request, look(), "nothing is touched");
            match answer {
                Some(answer) => answers.send(answer).await.expect("a client"),
                None => answers.closed().await,
            }
        });
        let warnings = warnings(&socket, &look()).await;
        daemon.await.expect("no panic");
        warnings
    }

    #[tokio::test]
    async fn what_a_dry_run_warns_of_is_told_before_a_move() {
        let checks = vec![Check::passed("db2 streams"), Check::warning("the archiver of db1 fails")];
        let plan = Response::Plan { steps: vec!["db1 stops".to_owned()], checks };
        assert_eq!(told(Some(plan)).await, ["the archiver of db1 fails"]);
        let refused = Response::Plan { steps: Vec::new(), checks: vec![Check::failed("db2 lags")] };
        assert_eq!(told(Some(refused)).await, Vec::<String>::new(), "the order itself says so");
        assert!(warnings(Path::new("/nowhere/admin.sock"), &look()).await.is_empty());
    }

    #[tokio::test]
    async fn a_daemon_that_does_not_say_what_a_move_would_meet_holds_it_up_for_a_moment() {
        let begun = crate::clock::now();
        let told = told(None).await;
        assert!(crate::clock::now().since(begun) < LOOKS_FOR + Duration::from_secs(1));
        assert_eq!(told, ["what the move would meet is not known: no answer within 2 s"]);
    }
}
