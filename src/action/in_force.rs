//! What is in force on this host, asked of the agents that can tell: each fence that left rules, lines or a locked role
//! here, whoever put them in place and whenever. It reads; what is too much says `crate::node::undone`.
//!
//! Asked are agents whose metadata declares the action `in-force`; those of other makers do not. A line of the answer:
//!
//! ```text
//! in-force fence=7 node=db1 what=chains fence_7_input (5 rules), fence_7_output (5 rules)
//! ```
//!
//! `node=-` where the agent does not know. All other lines are for people.

use super::fence::Runner;
use crate::types::{AgentAction, AgentName, AgentOrder, AgentOutcome, FenceId, Quoted, Standing};
use std::collections::BTreeMap;

/// How a line of the answer begins.
const MARK: &str = "in-force ";

/// A line that begins as an answer and is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: expected \"in-force fence=NUMBER node=NAME what=TEXT\"", Quoted(line))]
pub struct NotStanding {
    pub line: String,
}

/// Reads what an agent printed. Lines that begin otherwise are left out; those that begin as an answer and cannot be
/// read are named.
pub fn parse(output: &str) -> (Vec<Standing>, Vec<NotStanding>) {
    let (mut found, mut bad) = (Vec::new(), Vec::new());
    for line in output.lines().filter(|line| line.starts_with(MARK)) {
        match standing(line) {
            Some(standing) => found.push(standing),
            None => bad.push(NotStanding { line: line.to_owned() }),
        }
    }
    (found, bad)
}

fn standing(line: &str) -> Option<Standing> {
    let (fence, rest) = line.strip_prefix(MARK)?.strip_prefix("fence=")?.split_once(" node=")?;
    let (node, what) = rest.split_once(" what=")?;
    let fence = FenceId(fence.parse().ok()?);
    // A name that no node of a cluster can have is somebody's own use of the agent: unknown here.
    Some(Standing { fence, node: node.parse().ok(), what: what.to_owned() })
}

/// Asks each agent of the orders (`node::in_force_orders`) that can tell, all at once. One entry for an agent and a
/// fence. An agent that fails is named in the log; what it printed all the
/// same counts. And whether all have told all: what could not be seen is looked for again.
pub async fn look(runner: &Runner, orders: &[AgentOrder]) -> (Vec<(AgentName, Standing)>, bool) {
    let asked = orders.iter().filter(|order| order.action == AgentAction::InForce).map(|order| ask(runner, order));
    let mut all: BTreeMap<(AgentName, FenceId), Standing> = BTreeMap::new();
    let mut whole = true;
    for (order, (found, all_told)) in orders.iter().zip(futures::future::join_all(asked).await) {
        whole &= all_told;
        for standing in found {
            let known = all.entry((order.agent.clone(), standing.fence)).or_insert_with(|| standing.clone());
            known.node = known.node.take().or(standing.node);
            if !known.what.contains(&standing.what) {
                known.what += &format!("; {}", standing.what);
            }
        }
    }
    (all.into_iter().map(|((agent, _), standing)| (agent, standing)).collect(), whole)
}

async fn ask(runner: &Runner, order: &AgentOrder) -> (Vec<Standing>, bool) {
    // An agent without metadata was named at the start (`Runner::check`).
    if !runner.metadata(&order.agent).await.is_ok_and(|metadata| metadata.offers(AgentAction::InForce.word())) {
        return (Vec::new(), true);
    }
    let run = runner.run(order, 1).await;
    let (found, bad) = parse(&run.output);
    let whole = bad.is_empty() && run.outcome == AgentOutcome::Succeeded;
    for problem in bad {
        tracing::warn!(agent = %order.agent, "what is in force here is not wholly known: {problem}");
    }
    if run.outcome != AgentOutcome::Succeeded {
        tracing::warn!(agent = %order.agent, outcome = %run.outcome, "what is in force here is not wholly known: {}", run.output);
    }
    (found, whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_an_answer_are_read_and_others_left_out() {
        let output = "In force on this host:\n/run/x/pg_hba.conf: no server runs\n\
                      in-force fence=7 node=db1 what=4 reject lines in /a b/c; x=y node=z what=\n\
                      in-force fence=12 node=- what=\n  in-force fence=1 node=a what=indented\n";
        let (found, bad) = parse(output);
        let standing = |fence, node: Option<&str>, what: &str| Standing {
            fence: FenceId(fence),
            node: node.map(|name| name.parse().expect("a name")),
            what: what.to_owned(),
        };
        assert_eq!(
            found,
            [standing(7, Some("db1"), "4 reject lines in /a b/c; x=y node=z what="), standing(12, None, "")]
        );
        assert_eq!(bad, []);
    }

    #[test]
    fn a_line_that_begins_as_an_answer_and_is_none_is_named() {
        let bad =
            ["in-force ", "in-force fence=x node=a what=", "in-force fence=1 what=b", "in-force fence=-1 node=a what="];
        for line in bad {
            let (found, named) = parse(&format!("{line}\nin-force fence=1 node=db1 what=x\n"));
            assert_eq!((found.len(), named), (1, vec![NotStanding { line: line.to_owned() }]));
        }
        let text = NotStanding { line: bad[2].to_owned() }.to_string();
        assert!(text.contains("fence=1 what=b") && text.contains("expected \"in-force fence=NUMBER"), "{text}");
        assert_eq!(parse("in-force fence=1 node=no:name what=x").0[0].node, None);
    }
}
