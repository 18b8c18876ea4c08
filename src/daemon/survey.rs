//! The dry run of a planned move asks both databases what the move would meet there: through the daemons beside them.
//!
//! Not here: the questions (`engine`), and what the answers mean (`pages`).

use super::Daemon;
use super::wakeup::{Call, CallReply};
use crate::api::admin::Response;
use crate::clock;
use crate::pages::{self, Behind};
use crate::plan::switchover::Switchover;
use crate::types::{NodeName, ServiceName, Span, Survey};
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a database may take to answer: an operator waits, and a move that is to begin waits for 2 s (`cli/switchover.rs`).
const PATIENCE: Duration = Duration::from_millis(1500);

impl Daemon {
    /// Answers a dry run of a move that would be begun.
    pub(super) fn dry_run(&self, planned: Switchover, reply: mpsc::Sender<Response>) {
        let behind = self.node.behind(clock::now());
        let time = behind.get(&planned.service).and_then(|standbys| standbys.get(&planned.to)).copied();
        let behind = time.map(|time| Behind { time, limit: self.config.failover.max_lag_time });
        let from = self.surveyed(planned.from.clone(), planned.service.clone());
        let to = self.surveyed(planned.to.clone(), planned.service.clone());
        tokio::spawn(async move {
            let (from, to) = tokio::join!(from, to);
            let said = [(planned.from.clone(), from), (planned.to.clone(), to)];
            super::operator::answer(&reply, pages::dry_run(&planned, behind, &said));
        });
    }

    /// What the database of a node says, or why that is not known.
    fn surveyed(
        &self,
        node: NodeName,
        service: ServiceName,
    ) -> impl Future<Output = Result<Survey, String>> + Send + use<> {
        let (is_here, here, consensus) = (node == self.config.node, self.survey(&service), self.consensus.clone());
        async move {
            if is_here {
                return here.await;
            }
            let body = serde_json::to_vec(&Call::Survey { service }).expect("plain data");
            let answer = consensus.call(&node, body, PATIENCE).await.map_err(|error| format!("no answer: {error}"))?;
            serde_json::from_slice(&answer).map_err(|error| format!("an answer of another version: {error}"))?
        }
    }

    /// What the database here says.
    fn survey(&self, service: &ServiceName) -> impl Future<Output = Result<Survey, String>> + Send + use<> {
        let engine = self.shell.engines.get(service).cloned();
        async move {
            let Some(engine) = engine else { return Err("it has no such database".to_owned()) };
            match tokio::time::timeout(PATIENCE, engine.survey()).await {
                Ok(answer) => answer.map_err(|error| error.to_string()),
                Err(_) => Err(format!("its database did not answer within {}", Span(PATIENCE))),
            }
        }
    }

    /// Answers the leader's question.
    pub(super) fn answer_survey(&self, service: &ServiceName, reply: CallReply) {
        let survey = self.survey(service);
        tokio::spawn(async move {
            // The leader may have gone on without it.
            let _ = reply.send(serde_json::to_vec(&survey.await).expect("plain data"));
        });
    }
}
