//! Why this daemon is to stop: it alone, or with its host. The service manager is asked when the signal comes, and not for
//! long; no answer, where there is none for example, says that it is the daemon alone.
//!
//! Not here: what is done for either (`node/leave.rs`). A restart has a signal of its own and asks nobody.

use crate::types::Leaving;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// A service manager that has stopped answering holds up nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks.
pub async fn reason() -> Leaving {
    let mut question = Command::new("systemctl");
    question.args(["show", "--property=Job", "--property=ActiveState", "shutdown.target"]);
    question.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(PATIENCE, question.output()).await {
        Ok(Ok(answer)) if says_that_the_host_goes_down(&String::from_utf8_lossy(&answer.stdout)) => {
            Leaving::HostGoesDown
        }
        _ => Leaving::DaemonStops,
    }
}

/// A job is queued for `shutdown.target`, or it is reached. (`is-system-running` says `starting` until the boot is complete,
/// also of a host that goes down by then.)
fn says_that_the_host_goes_down(answer: &str) -> bool {
    answer.lines().filter_map(|line| line.split_once('=')).any(|(property, value)| match property {
        "Job" => !matches!(value, "" | "0"),
        "ActiveState" => matches!(value, "active" | "activating"),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_goes_down_once_its_shutdown_is_queued() {
        assert!(!says_that_the_host_goes_down("ActiveState=inactive\n"));
        assert!(!says_that_the_host_goes_down("Job=\nActiveState=inactive\n"));
        assert!(says_that_the_host_goes_down("Job=1734\nActiveState=inactive\n"));
        assert!(says_that_the_host_goes_down("ActiveState=active\n"));
        assert!(!says_that_the_host_goes_down(""), "nobody answered");
    }
}
