//! The holder's side: when to ask, what a grant is worth, when to stop.

use super::{Grant, LeaseRequest};
use crate::known_bugs::{self, Bug};
use crate::types::{Boot, Epoch, Incarnation, Instant, NodeName, ServiceName};
use std::collections::BTreeMap;
use std::time::Duration;

/// The lease of one service on this node.
#[derive(Clone, Debug)]
pub struct Holder {
    epoch: Epoch,
    /// Requests under way: when each was about to be sent.
    asked: BTreeMap<u64, Instant>,
    next_request: u64,
    /// Until when writes may be acknowledged.
    until: Option<Instant>,
    /// Until when the lease was held the last time, for `status`.
    asked_last: Option<Instant>,
    /// The last request got no answer: when to ask again.
    again_at: Option<Instant>,
    /// Requests in a row that reached no grantor.
    unanswered: u32,
    renew: Duration,
}

impl Holder {
    /// A holder of nothing yet, for `epoch`. `renew` is the pause between requests.
    pub fn new(epoch: Epoch, renew: Duration) -> Self {
        Holder {
            epoch,
            asked: BTreeMap::new(),
            next_request: 1,
            until: None,
            asked_last: None,
            again_at: None,
            unanswered: 0,
            renew,
        }
    }

    /// A lease that an earlier daemon of the same boot kept, valid until `until`.
    pub fn adopt(epoch: Epoch, renew: Duration, until: Instant) -> Self {
        Holder { until: Some(until), ..Holder::new(epoch, renew) }
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether writes may be acknowledged now.
    pub fn is_valid(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// When the lease ends, or ended.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// When the next request is due: at once without a lease, else one renewal interval after the last.
    pub fn next_request_at(&self) -> Option<Instant> {
        self.again_at.or(self.asked_last.map(|asked| asked + self.renew))
    }

    /// Whether a request is due.
    pub fn is_request_due(&self, now: Instant) -> bool {
        self.next_request_at().is_none_or(|at| now >= at)
    }

    /// Makes the next request. The lease that it may bring counts from `now`, before it is sent (S5).
    pub fn request(
        &mut self,
        now: Instant,
        service: &ServiceName,
        me: (&NodeName, &Boot, Incarnation),
    ) -> LeaseRequest {
        let number = self.next_request;
        self.next_request += 1;
        self.asked.insert(number, now);
        while self.asked.len() > 16 {
            self.asked.pop_first();
        }
        self.asked_last = Some(now);
        self.again_at = None;
        let (node, boot, incarnation) = me;
        LeaseRequest {
            service: service.clone(),
            epoch: self.epoch,
            number,
            node: node.clone(),
            boot: boot.clone(),
            incarnation,
            resumed: None,
        }
    }

    /// Ask again at once: whoever was asked leads no more.
    pub fn ask_again(&mut self) {
        self.asked_last = None;
        self.again_at = None;
        self.unanswered = 0;
    }

    /// Requests in a row that reached no grantor: whoever sends them tries another way.
    pub fn unanswered(&self) -> u32 {
        self.unanswered
    }

    /// The last request reached no grantor.
    pub fn failed(&mut self) {
        self.unanswered += 1;
    }

    /// A grantor answered, whatever it said.
    pub fn answered(&mut self) {
        self.unanswered = 0;
    }

    /// Ask again then: the last request was not answered.
    pub fn ask_again_at(&mut self, at: Instant) {
        self.again_at = Some(at);
    }

    /// A grant arrived at `now`. It is worth ttl x (1 - drift) from before its own request was sent; an unknown or older number
    /// brings nothing.
    pub fn granted(&mut self, now: Instant, grant: &Grant) {
        if grant.epoch != self.epoch {
            return;
        }
        let Some(asked) = self.asked.remove(&grant.number) else { return };
        let asked = if known_bugs::has(Bug::LeaseFromAnswer) { now } else { asked };
        let until = asked + grant.use_for;
        self.until = Some(self.until.map_or(until, |before| before.max(until)));
        self.asked.retain(|number, _| *number > grant.number);
    }

    /// The right is given back, or taken by a verdict: from now on it is not valid.
    pub fn drop_lease(&mut self, now: Instant) {
        self.asked.clear();
        self.until = self.until.map(|until| until.min(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(h: &mut Holder, at: u64) -> u64 {
        let boot = Boot("b".into());
        let node = "n1".parse().unwrap();
        h.request(Instant(at), &"s".parse().unwrap(), (&node, &boot, Incarnation(1))).number
    }

    fn grant(number: u64) -> Grant {
        Grant { epoch: Epoch(3), number, use_for: Duration::from_nanos(100), resumed: None }
    }

    #[test]
    fn s5_a_lease_counts_from_before_it_was_asked_for() {
        let mut h = Holder::new(Epoch(3), Duration::from_nanos(10));
        let first = asked(&mut h, 1000);
        h.granted(Instant(1), &grant(first));
        assert!(h.is_valid(Instant(1099)));
        assert!(!h.is_valid(Instant(1100)), "not a moment longer, however late the answer came");
    }

    #[test]
    fn the_answer_to_one_request_is_not_credited_to_another() {
        let mut h = Holder::new(Epoch(3), Duration::from_nanos(10));
        let first = asked(&mut h, 1000);
        let _second = asked(&mut h, 2000);
        h.granted(Instant(1), &grant(first));
        assert!(!h.is_valid(Instant(1500)));
        h.granted(Instant(1), &grant(first));
        h.granted(Instant(1), &grant(77));
        assert!(!h.is_valid(Instant(1500)), "a repeated or unknown number brings nothing");
    }

    #[test]
    fn a_grant_for_another_epoch_brings_nothing() {
        let mut h = Holder::new(Epoch(4), Duration::from_nanos(10));
        let n = asked(&mut h, 1000);
        h.granted(Instant(1), &grant(n));
        assert!(!h.is_valid(Instant(1001)));
    }

    #[test]
    fn an_answer_that_comes_after_the_right_was_dropped_brings_nothing() {
        let mut h = Holder::new(Epoch(3), Duration::from_nanos(10));
        let n = asked(&mut h, 1000);
        h.drop_lease(Instant(1001));
        h.granted(Instant(1), &grant(n));
        assert!(!h.is_valid(Instant(1002)));
    }
}
