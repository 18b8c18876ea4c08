//! The daemon's own messages from peers. One may arrive twice, over both networks: it is handled once, and both get the
//! same answer.

use crate::types::NodeName;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use tokio::sync::{mpsc, oneshot};

/// So many calls are remembered.
const REMEMBERED: usize = 1024;

/// One message from a peer whose identity was checked.
#[derive(Debug)]
pub struct IncomingCall {
    pub from: NodeName,
    pub body: Vec<u8>,
    /// Dropped without an answer, the peer is told that this node did not answer.
    pub reply: oneshot::Sender<Vec<u8>>,
}

type Answer = Shared<BoxFuture<'static, Result<Vec<u8>, String>>>;

#[derive(Default)]
struct Known {
    answers: BTreeMap<(NodeName, u64), Answer>,
    order: VecDeque<(NodeName, u64)>,
}

/// Hands calls to the daemon.
pub struct Calls {
    daemon: mpsc::Sender<IncomingCall>,
    known: Mutex<Known>,
}

impl Calls {
    pub fn new(daemon: mpsc::Sender<IncomingCall>) -> Self {
        Calls { daemon, known: Mutex::default() }
    }

    /// Handles a call once, however often it arrives.
    pub async fn take(&self, from: NodeName, id: u64, body: Vec<u8>) -> Result<Vec<u8>, String> {
        let answer = {
            let mut known = self.known.lock().expect("a panic aborts the process");
            match known.answers.get(&(from.clone(), id)) {
                Some(answer) => answer.clone(),
                None => {
                    let answer = ask(self.daemon.clone(), from.clone(), body).boxed().shared();
                    known.answers.insert((from.clone(), id), answer.clone());
                    known.order.push_back((from, id));
                    if known.order.len() > REMEMBERED {
                        let oldest = known.order.pop_front();
                        oldest.and_then(|oldest| known.answers.remove(&oldest));
                    }
                    answer
                }
            }
        };
        answer.await
    }
}

async fn ask(daemon: mpsc::Sender<IncomingCall>, from: NodeName, body: Vec<u8>) -> Result<Vec<u8>, String> {
    let (reply, answer) = oneshot::channel();
    let sent = daemon.send(IncomingCall { from, body, reply }).await;
    sent.map_err(|_| "this node is shutting down".to_owned())?;
    answer.await.map_err(|_| "this node did not answer the call".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_that_arrives_twice_is_handled_once() {
        let (daemon, mut incoming) = mpsc::channel(8);
        let calls = Calls::new(daemon);
        let db2: NodeName = "db2".parse().expect("valid");
        let handle = async {
            let call: IncomingCall = incoming.recv().await.expect("one call");
            call.reply.send([call.body, b"!".to_vec()].concat()).expect("waited for");
            incoming.try_recv().is_err()
        };
        let twice =
            async { tokio::join!(calls.take(db2.clone(), 7, b"a".into()), calls.take(db2.clone(), 7, b"a".into())) };
        let (only_one, (first, second)) = tokio::join!(handle, twice);
        assert!(only_one, "the daemon saw it twice");
        assert_eq!((first, second), (Ok(b"a!".to_vec()), Ok(b"a!".to_vec())));
    }
}
