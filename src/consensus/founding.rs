//! The first start: the same file on every host is enough. When every configured voter answers blank, the one with the
//! lowest name initialises the cluster; the others get it from the log.
//!
//! A blank node among others that have state does not vote: its disk may have been wiped, and its old votes with it. It
//! may only when a voter with state remembers this very directory from the founding (then it never voted).

use super::transport::peer::Peer;
use super::transport::proto::HelloReply;
use crate::types::NodeName;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long one peer may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a blank node is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Founding {
    /// Every voter is blank: remember their directories; `lead`: initialise the cluster, for this is the lowest name.
    Found { founders: BTreeMap<NodeName, String>, lead: bool },
    /// Others have state and know this directory from the founding.
    Join,
    /// Not yet, and why.
    Wait(Vec<String>),
}

/// Asks every peer.
pub async fn ask_all(peers: &[Arc<Peer>]) -> BTreeMap<NodeName, Result<HelloReply, String>> {
    let asked = peers.iter().map(|peer| async move {
        let reply = peer.hello(PATIENCE).await.map_err(|error| error.to_string());
        (peer.name.clone(), reply)
    });
    futures::future::join_all(asked).await.into_iter().collect()
}

/// Decides from the answers of all other voters.
pub fn decide(
    me: &NodeName,
    founder: &str,
    voters: &[String],
    answers: &BTreeMap<NodeName, Result<HelloReply, String>>,
) -> Founding {
    let mut waiting = Vec::new();
    let mut founders = BTreeMap::from([(me.clone(), founder.to_owned())]);
    let mut settled = Vec::new();
    for (peer, answer) in answers {
        match answer {
            Err(error) => waiting.push(format!("first start: waiting for {peer}: {error}")),
            Ok(reply) if reply.voters != voters => waiting.push(format!(
                "first start: {peer} is configured with other nodes ({}) than this one ({}): use one file",
                reply.voters.join(", "),
                voters.join(", ")
            )),
            Ok(reply) if !reply.blank => settled.push((peer, reply)),
            Ok(reply) => drop(founders.insert(peer.clone(), reply.founder.clone())),
        }
    }
    if settled.iter().any(|(_, reply)| reply.founders.get(me.as_str()).is_some_and(|known| known == founder)) {
        return Founding::Join;
    }
    for (peer, _) in &settled {
        waiting.push(format!(
            "this node has no state, but {peer} has, and does not know this data directory: a voter whose disk was lost \
             must not vote again; remove it from the cluster and add it again"
        ));
    }
    if !waiting.is_empty() {
        return Founding::Wait(waiting);
    }
    let lead = founders.keys().next() == Some(me);
    Founding::Found { founders, lead }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: &str) -> NodeName {
        n.parse().expect("valid")
    }

    fn reply(blank: bool, founder: &str, founders: &[(&str, &str)]) -> Result<HelloReply, String> {
        Ok(HelloReply {
            blank,
            founder: founder.into(),
            founders: founders.iter().map(|(n, f)| ((*n).into(), (*f).into())).collect(),
            voters: vec!["db1".into(), "db2".into(), "db3".into()],
            ..HelloReply::default()
        })
    }

    fn decide_as(me: &str, answers: [(&str, Result<HelloReply, String>); 2]) -> Founding {
        let voters = ["db1", "db2", "db3"].map(String::from);
        decide(&name(me), "mine", &voters, &answers.into_iter().map(|(n, a)| (name(n), a)).collect())
    }

    #[test]
    fn only_when_all_are_blank_the_lowest_name_initialises() {
        let found = decide_as("db1", [("db2", reply(true, "b", &[])), ("db3", reply(true, "c", &[]))]);
        let founders = [("db1", "mine"), ("db2", "b"), ("db3", "c")].map(|(n, f)| (name(n), f.to_owned()));
        assert_eq!(found, Founding::Found { founders: founders.into(), lead: true });
        let other = decide_as("db2", [("db1", reply(true, "a", &[])), ("db3", reply(true, "c", &[]))]);
        assert!(matches!(other, Founding::Found { lead: false, .. }));
        let silent = decide_as("db1", [("db2", reply(true, "b", &[])), ("db3", Err("no route".into()))]);
        let Founding::Wait(why) = silent else { panic!("{silent:?}") };
        assert!(why.len() == 1 && why[0].contains("waiting for db3: no route"), "{why:?}");
    }

    #[test]
    fn a_blank_voter_among_others_that_have_state_does_not_vote() {
        let wiped = decide_as(
            "db3",
            [("db1", reply(false, "a", &[("db3", "before the disk was lost")])), ("db2", reply(true, "b", &[]))],
        );
        let Founding::Wait(why) = wiped else { panic!("{wiped:?}") };
        assert!(why[0].contains("db1 has") && why[0].contains("must not vote again"), "{why:?}");
    }

    #[test]
    fn a_founder_that_restarted_before_it_got_the_log_joins() {
        let joined =
            decide_as("db3", [("db1", reply(false, "a", &[("db3", "mine")])), ("db2", Err("restarting".into()))]);
        assert_eq!(joined, Founding::Join);
    }

    #[test]
    fn files_that_list_other_nodes_are_named() {
        let mut other = reply(true, "b", &[]);
        other.as_mut().expect("a reply").voters.push("db4".into());
        let Founding::Wait(why) = decide_as("db1", [("db2", other), ("db3", reply(true, "c", &[]))]) else {
            panic!("did not wait")
        };
        assert!(why[0].contains("db2 is configured with other nodes (db1, db2, db3, db4)"), "{why:?}");
    }
}
