//! What an operator may ask a daemon, and what it answers, as plain data: one JSON value a line over the admin socket.
//!
//! A connection carries one [`Request`]; then [`Response::Progress`] any number of times, then one final response.
//! Not here: the socket itself (`super::socket` serves, `super::client` asks) and any decision.

use super::status::{IncidentReport, IncidentSummary, Status};
use crate::types::{IncidentId, NodeName, ServiceName};
use serde::{Deserialize, Serialize};

/// The file name of the admin socket within `run_dir`.
pub const SOCKET_NAME: &str = "admin.sock";

/// The group whose members may use the admin socket, where it exists.
pub const GROUP: &str = "regent";

/// What an operator asks. Where `service` is absent, the cluster's only service is meant; with several, the daemon
/// refuses and names them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    Status,
    /// Move the primary in order. `to` absent: the best candidate. `dry_run`: answer with [`Response::Plan`] only.
    Switchover {
        service: Option<ServiceName>,
        to: Option<NodeName>,
        dry_run: bool,
    },
    /// Move the primary by force: the present one is fenced, whatever it looks like.
    /// `force`: although no majority of voters would be left.
    Failover {
        service: Option<ServiceName>,
        #[serde(default)]
        force: bool,
    },
    /// Let the next appointment of a service that has no primary lose more than `failover.max_lag`.
    AcceptLoss {
        service: Option<ServiceName>,
        /// The one that may be appointed so; otherwise whoever has most.
        to: Option<NodeName>,
    },
    /// Throw a node's data away and copy it anew from the primary; `cancel`: not any more.
    Reinit {
        service: Option<ServiceName>,
        node: NodeName,
        #[serde(default)]
        cancel: bool,
    },
    /// Restart a node's database in place; `cancel`: not any more. `force`: although nobody could take over meanwhile.
    Restart {
        service: Option<ServiceName>,
        node: NodeName,
        #[serde(default)]
        force: bool,
        #[serde(default)]
        cancel: bool,
    },
    /// Let the copy on a node win; without `node`, take that word back. `dry_run`: answer with [`Response::Plan`] only.
    AcceptCopy {
        service: Option<ServiceName>,
        node: Option<NodeName>,
        #[serde(default)]
        dry_run: bool,
    },
    Pause {
        service: Option<ServiceName>,
        /// Why, for people.
        #[serde(default)]
        reason: Option<String>,
        /// It ends by itself after that.
        #[serde(default)]
        lasts_ms: Option<u64>,
    },
    Resume {
        service: Option<ServiceName>,
    },
    /// Leave a node alone, and count on it no more. `force`: although the last margin goes with it.
    Maintenance {
        node: NodeName,
        /// It ends by itself after that.
        lasts_ms: Option<u64>,
        #[serde(default)]
        force: bool,
    },
    EndMaintenance {
        node: NodeName,
    },
    /// Fence the present boot of a node. `force`: although no majority of voters would be left.
    Fence {
        node: NodeName,
        #[serde(default)]
        force: bool,
    },
    /// A person vouches that the node's fenced boot cannot write any more. `force`: although a sign of life shows;
    /// recorded.
    FenceConfirm {
        node: NodeName,
        incident: IncidentId,
        force: bool,
    },
    Unfence {
        node: NodeName,
    },
    /// The daemon that is asked reads its configuration file again.
    Reload,
    History,
    /// `None`: the latest incident.
    Explain {
        incident: Option<IncidentId>,
    },
}

impl Request {
    /// Whether the cluster may be another one afterwards: an unknown outcome then matters.
    pub fn changes_something(&self) -> bool {
        !matches!(
            self,
            Request::Status
                | Request::History
                | Request::Explain { .. }
                | Request::Switchover { dry_run: true, .. }
                | Request::AcceptCopy { dry_run: true, .. }
        )
    }
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Response {
    /// Not the end: what is being done, or waited for. One sentence.
    Progress {
        message: String,
        /// It holds nothing up, and is to be known before it goes on.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        warning: bool,
    },
    /// It is done, and it is in the ledger.
    Done {
        message: String,
        details: Vec<String>,
    },
    /// It was not begun, and these are the reasons; nothing has changed.
    Refused {
        reasons: Vec<String>,
    },
    /// It was begun and did not work, or the request could not be read.
    Failed {
        error: String,
    },
    /// What a switchover would do, step by step, and every check.
    Plan {
        steps: Vec<String>,
        checks: Vec<Check>,
    },
    Status(Box<Status>),
    /// Newest first.
    History {
        incidents: Vec<IncidentSummary>,
    },
    Incident(Box<IncidentReport>),
}

impl Response {
    /// What is being done, or waited for.
    pub fn progress(message: impl Into<String>) -> Response {
        Response::Progress { message: message.into(), warning: false }
    }

    /// Whether nothing follows it.
    pub fn is_final(&self) -> bool {
        !matches!(self, Response::Progress { .. })
    }
}

/// One check of a dry run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub passed: bool,
    /// It does not keep the command from being begun, and is to be known before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub warning: bool,
    /// One sentence, with the values that were compared.
    pub what: String,
}

impl Check {
    pub fn passed(what: impl ToString) -> Self {
        Check { passed: true, warning: false, what: what.to_string() }
    }

    pub fn warning(what: impl ToString) -> Self {
        Check { passed: true, warning: true, what: what.to_string() }
    }

    pub fn failed(what: impl ToString) -> Self {
        Check { passed: false, warning: false, what: what.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_one_line_with_its_verb_and_no_unknown_key() {
        let request = Request::Switchover { service: None, to: Some("db2".parse().expect("valid")), dry_run: true };
        let line = serde_json::to_string(&request).expect("serializable");
        assert_eq!(line, r#"{"verb":"switchover","service":null,"to":"db2","dry_run":true}"#);
        assert_eq!(serde_json::from_str::<Request>(&line).expect("its own output"), request);
        let wrong = r#"{"verb":"fence","node":"db1","nodes":"db2"}"#;
        assert!(serde_json::from_str::<Request>(wrong).is_err(), "an unknown key was accepted");
    }

    #[test]
    fn only_questions_change_nothing() {
        let service = None;
        assert!(!Request::Switchover { service: None, to: None, dry_run: true }.changes_something());
        assert!(Request::Switchover { service: None, to: None, dry_run: false }.changes_something());
        assert!(Request::Pause { service, reason: None, lasts_ms: None }.changes_something());
        assert!(!Request::Explain { incident: None }.changes_something());
    }
}
