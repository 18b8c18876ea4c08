//! Following a cluster: asking whichever node answers, and telling what is new since the last look.

#![expect(clippy::disallowed_methods, reason = "how often the demo looks: it shows, and decides nothing")]

use super::place::{NODES, Place};
use crate::api::admin::{Request, Response};
use crate::api::client;
use crate::api::status::{NodeState, Status};
use crate::cli::{output, render};
use crate::types::Span;
use anyhow::Context;
use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_millis(100);
const ANSWER_WITHIN: Duration = Duration::from_millis(800);

/// What was told so far.
#[derive(Default)]
pub struct Story {
    told: Vec<String>,
    /// When the present chapter began, by the answering node's time of day.
    began_ms: Option<u64>,
}

impl Story {
    /// A new chapter: times count from the next look.
    pub fn chapter(&mut self, title: &str) {
        output::say(&format!("\n== {title}"));
        self.began_ms = None;
    }

    /// Looks again and again, tells what is new, and returns the first status that fulfils `when`.
    pub async fn until(
        &mut self,
        place: &Place,
        what: &str,
        within: Duration,
        when: impl Fn(&Status) -> bool,
    ) -> anyhow::Result<Status> {
        let look = async {
            let mut tick = tokio::time::interval(LOOK_EVERY);
            loop {
                tick.tick().await;
                let Some(status) = look(place).await else { continue };
                self.tell(&status);
                if when(&status) {
                    return status;
                }
            }
        };
        let ended = tokio::time::timeout(within, look).await;
        ended.with_context(|| {
            format!(
                "{what} did not happen within {}; the nodes' logs are {}/nodes/*/log",
                Span(within),
                place.folder.display()
            )
        })
    }

    fn tell(&mut self, status: &Status) {
        let began = *self.began_ms.get_or_insert(status.answered_at_ms.0);
        let now = facts(status);
        for fact in now.iter().filter(|fact| !self.told.contains(fact)) {
            output::say(&format!("{:>7} ms  {fact}", status.answered_at_ms.0.saturating_sub(began)));
        }
        self.told = now;
    }
}

/// The status as the first node tells it that answers in time.
pub async fn look(place: &Place) -> Option<Status> {
    match ask(place, &Request::Status, ANSWER_WITHIN).await {
        Ok(Response::Status(status)) => Some(*status),
        _ => None,
    }
}

/// Asks the first node that answers. Progress is told.
pub async fn ask(place: &Place, request: &Request, within: Duration) -> anyhow::Result<Response> {
    let mut last = None;
    for (name, _) in NODES {
        let tell = |message: &str| output::say(&format!("            {message}"));
        match client::ask(&place.socket(name), request, within, tell).await {
            Ok(response) => return Ok(response),
            // Sent, and perhaps being done: asking another node would ask for it twice.
            Err(error) if request.changes_something() && !matches!(error, client::AskError::NotRunning { .. }) => {
                return Err(error.into());
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.context("there is no node")?.into())
}

/// Asks this one node.
pub async fn ask_node(place: &Place, node: &str, request: &Request, within: Duration) -> anyhow::Result<Response> {
    Ok(client::ask(&place.socket(node), request, within, |_: &str| {}).await?)
}

/// What is worth telling of a status, one sentence each.
fn facts(status: &Status) -> Vec<String> {
    let mut facts = Vec::new();
    if let Some(leader) = &status.quorum.leader {
        facts.push(format!("{leader} leads (term {})", status.quorum.term));
    }
    for (name, node) in &status.nodes {
        match node.state {
            NodeState::NotJoined => {}
            NodeState::Left => facts.push(format!("{name} left in order")),
            state => facts.push(format!("{name} is {}", render::node_state(state))),
        }
    }
    for fence in &status.fences {
        facts.push(format!("fence {} of {}: {}", fence.id, fence.node, fence.stage));
        facts.extend(fence.attempts.iter().cloned());
    }
    for (name, service) in &status.services {
        let primary = service.primary.as_ref().map(|primary| format!(" on {primary}")).unwrap_or_default();
        facts.push(format!("{name} is {}{primary}, epoch {}", render::phase(service.phase), service.epoch));
        facts.extend(service.what_now.iter().cloned());
    }
    facts
}
