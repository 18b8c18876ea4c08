//! What the daemon's loop takes up next. The ledger comes first, then the timer, then what ends here (effects, people),
//! then peers' calls and heartbeats; but nobody waits for ever: after so many in a row of this host's own, calls and
//! heartbeats have a turn, and after so many of the ledger, what ends here has one.
//!
//! The answer to a quorum read stays behind the ledger whatever the turn is: everything that was committed before the
//! read was put into the ledger's stream before the answer was put into its own, so the answer waits until what that
//! stream held when it came out has been taken.
//!
//! Not here: what is done with it (`super`).

use super::wakeup::Wakeup;
use crate::channel::Arrival;
use crate::consensus::{self, IncomingCall};
use crate::node::Event;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc;

/// So many of one sort are taken in a row while others wait.
const IN_A_ROW: usize = 64;

/// One thing to take up.
pub enum Incoming {
    Ledger(consensus::Event),
    /// The moment that the node named has come.
    Due,
    Wakeup(Wakeup),
    Call(IncomingCall),
    Arrival(Arrival),
}

/// Everything that comes in, and whose turn it is.
pub struct Inbox {
    ledger: mpsc::UnboundedReceiver<consensus::Event>,
    wakeups: mpsc::UnboundedReceiver<Wakeup>,
    calls: mpsc::Receiver<IncomingCall>,
    arrivals: mpsc::Receiver<Arrival>,
    /// Of this host's own, since others had a turn.
    own_in_a_row: usize,
    /// Of the ledger, since wakeups had a turn.
    ledger_in_a_row: usize,
    /// How many more are taken in a turn of others, and in one of wakeups, that comes before what is usually first.
    others_left: usize,
    wakeups_left: usize,
    /// The timer was the last that was taken: it comes last now, or a node that is always late would hear nothing else.
    was_due: bool,
    /// The answer to a quorum read, and how much of the ledger comes before it.
    answer: Option<(Wakeup, usize)>,
}

impl Inbox {
    pub fn new(
        ledger: mpsc::UnboundedReceiver<consensus::Event>,
        wakeups: mpsc::UnboundedReceiver<Wakeup>,
        calls: mpsc::Receiver<IncomingCall>,
        arrivals: mpsc::Receiver<Arrival>,
    ) -> Self {
        let (own_in_a_row, ledger_in_a_row, others_left, wakeups_left) = (0, 0, 0, 0);
        let (was_due, answer) = (false, None);
        Inbox {
            ledger,
            wakeups,
            calls,
            arrivals,
            own_in_a_row,
            ledger_in_a_row,
            others_left,
            wakeups_left,
            was_due,
            answer,
        }
    }

    /// Waits for the next one. `due` is the node's timer.
    pub async fn next(&mut self, due: impl Future<Output = ()>) -> Incoming {
        if self.own_in_a_row >= IN_A_ROW {
            self.own_in_a_row = 0;
            self.others_left = IN_A_ROW;
            // Whoever fills the queues of calls and heartbeats runs on this very thread.
            tokio::task::yield_now().await;
        }
        let mut due = pin!(due);
        let next = poll_fn(|cx| self.poll(cx, due.as_mut())).await;
        self.was_due = matches!(next, Incoming::Due);
        match next {
            Incoming::Ledger(_) | Incoming::Due | Incoming::Wakeup(_) => self.own_in_a_row += 1,
            Incoming::Call(_) | Incoming::Arrival(_) if self.others_left == 0 => self.own_in_a_row = 0,
            Incoming::Call(_) | Incoming::Arrival(_) => {}
        }
        next
    }

    fn poll(&mut self, cx: &mut Context<'_>, mut due: Pin<&mut impl Future<Output = ()>>) -> Poll<Incoming> {
        if self.others_left > 0 {
            self.others_left -= 1;
            if let Poll::Ready(other) = self.poll_others(cx) {
                return Poll::Ready(other);
            }
            self.others_left = 0;
        }
        if let Some((answer, _)) = self.answer.take_if(|(_, before)| *before == 0) {
            return Poll::Ready(Incoming::Wakeup(answer));
        }
        if self.ledger_in_a_row >= IN_A_ROW {
            self.ledger_in_a_row = 0;
            self.wakeups_left = IN_A_ROW;
        }
        if self.wakeups_left > 0 {
            self.wakeups_left -= 1;
        } else if let Poll::Ready(event) = self.poll_ledger(cx) {
            return Poll::Ready(event);
        }
        if !self.was_due && due.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Incoming::Due);
        }
        if let Poll::Ready(wakeup) = self.poll_wakeups(cx) {
            return Poll::Ready(wakeup);
        }
        self.wakeups_left = 0;
        // Also where it was asked above: nothing may be left that nobody will wake this task for.
        if let Poll::Ready(event) = self.poll_ledger(cx) {
            return Poll::Ready(event);
        }
        if let Poll::Ready(other) = self.poll_others(cx) {
            return Poll::Ready(other);
        }
        if self.was_due { due.poll(cx).map(|()| Incoming::Due) } else { Poll::Pending }
    }

    fn poll_ledger(&mut self, cx: &mut Context<'_>) -> Poll<Incoming> {
        let Some(event) = ready!(self.ledger.poll_recv(cx)) else { return Poll::Pending };
        self.ledger_in_a_row += 1;
        if let Some((_, before)) = &mut self.answer {
            *before = before.saturating_sub(1);
        }
        Poll::Ready(Incoming::Ledger(event))
    }

    fn poll_wakeups(&mut self, cx: &mut Context<'_>) -> Poll<Incoming> {
        // What came after the answer stays after it.
        if self.answer.is_some() {
            return Poll::Pending;
        }
        let Some(wakeup) = ready!(self.wakeups.poll_recv(cx)) else { return Poll::Pending };
        // The stream of the ledger is looked at after the answer came out of its own.
        let before = self.ledger.len();
        if before > 0 && matches!(wakeup, Wakeup::Node(Event::QuorumRead { .. })) {
            self.answer = Some((wakeup, before));
            return Poll::Pending;
        }
        Poll::Ready(Incoming::Wakeup(wakeup))
    }

    fn poll_others(&mut self, cx: &mut Context<'_>) -> Poll<Incoming> {
        // By turns: neither of the two is always first.
        if self.others_left.is_multiple_of(2)
            && let Poll::Ready(Some(call)) = self.calls.poll_recv(cx)
        {
            return Poll::Ready(Incoming::Call(call));
        }
        if let Poll::Ready(Some(arrival)) = self.arrivals.poll_recv(cx) {
            return Poll::Ready(Incoming::Arrival(arrival));
        }
        match self.calls.poll_recv(cx) {
            Poll::Ready(Some(call)) => Poll::Ready(Incoming::Call(call)),
            _ => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::Leadership;
    use crate::node::WatchdogSaid;
    use crate::types::{Boot, Heartbeat, Incarnation, Instant, Term};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    /// The far ends of an inbox.
    struct Senders {
        ledger: mpsc::UnboundedSender<consensus::Event>,
        wakeups: mpsc::UnboundedSender<Wakeup>,
        _calls: mpsc::Sender<IncomingCall>,
        arrivals: mpsc::Sender<Arrival>,
    }

    fn inbox() -> (Inbox, Senders) {
        let (ledger, events) = mpsc::unbounded_channel();
        let (wakeups, woken) = mpsc::unbounded_channel();
        let (_calls, calls) = mpsc::channel(64);
        let (arrivals, arrived) = mpsc::channel(1024);
        (Inbox::new(events, woken, calls, arrived), Senders { ledger, wakeups, _calls, arrivals })
    }

    fn arrival(at: Instant) -> Arrival {
        let heartbeat = Heartbeat {
            cluster: crate::types::ClusterId("orders".to_owned()),
            node: "db2".parse().expect("valid"),
            boot: Boot("b".into()),
            incarnation: Incarnation(1),
            sequence: 1,
            body: None,
        };
        Arrival { channel: "primary".parse().expect("valid"), at, from: None, heartbeat }
    }

    fn leadership(term: u64) -> consensus::Event {
        consensus::Event::Leadership(Leadership { term: Term(term), leader: None, i_lead: false, quorum_acked: false })
    }

    /// An effect that fails at once and is told at once: its end is there again whenever the loop looks.
    fn failed() -> Wakeup {
        Wakeup::Node(Event::Watchdog(WatchdogSaid::NotArmed { why: "it is busy".to_owned() }))
    }

    #[tokio::test]
    async fn a_heartbeat_waits_less_than_an_interval_while_an_effect_fails_at_once_for_ever() {
        const BEATS: usize = 30;
        // That of the profile `lan`; and what one event may cost. Counted in events, not by a clock: on a busy machine a
        // test may be stopped for as long as it likes.
        let (interval, cost) = (Duration::from_millis(200), Duration::from_millis(1));
        let (mut inbox, senders) = inbox();
        senders.wakeups.send(failed()).expect("open");
        let handled = Arc::new(AtomicU64::new(0));
        let (arrivals, seen) = (senders.arrivals.clone(), handled.clone());
        // As the kernel does it: whatever the loop's thread is doing.
        let beats = std::thread::spawn(move || {
            for _ in 0..BEATS {
                arrivals.blocking_send(arrival(Instant(seen.load(Ordering::Relaxed)))).expect("open");
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let (mut heard, mut longest) = (0, 0);
        while heard < BEATS && handled.load(Ordering::Relaxed) < 10_000_000 {
            match inbox.next(std::future::pending()).await {
                Incoming::Arrival(arrival) => {
                    heard += 1;
                    longest = longest.max(handled.load(Ordering::Relaxed) - arrival.at.0);
                }
                Incoming::Wakeup(_) => {
                    handled.fetch_add(1, Ordering::Relaxed);
                    senders.wakeups.send(failed()).expect("open");
                }
                _ => panic!("nothing else was sent"),
            }
        }
        assert_eq!(heard, BEATS, "heartbeats were not heard while wakeups came without end");
        let wait = cost * u32::try_from(longest).expect("few");
        println!("TIME longest wait of a heartbeat: {longest} events, {wait:?}");
        assert!(wait < interval, "a heartbeat waited for {longest} events, {wait:?}");
        beats.join().expect("no panic");
    }

    #[tokio::test]
    async fn the_answer_to_a_quorum_read_comes_after_what_was_committed_before_it() {
        let (mut inbox, senders) = inbox();
        let (mut sent, mut seen, mut answers) = (0, 0, 0);
        for id in 0..300 {
            // What is committed, the answer to a read that began after it, and what fails at once, all the time.
            for _ in 0..(id % 7) {
                sent += 1;
                senders.ledger.send(leadership(sent)).expect("open");
            }
            senders.wakeups.send(Wakeup::Node(Event::QuorumRead { id: sent, confirmed: true })).expect("open");
            senders.wakeups.send(failed()).expect("open");
            for _ in 0..5 {
                match inbox.next(std::future::ready(())).await {
                    Incoming::Ledger(consensus::Event::Leadership(l)) => seen = l.term.0,
                    Incoming::Wakeup(Wakeup::Node(Event::QuorumRead { id, .. })) => {
                        answers += 1;
                        assert!(id <= seen, "the answer to a read came before entry {id}: {seen} were taken in");
                    }
                    _ => {}
                }
            }
        }
        while answers < 300 {
            match inbox.next(std::future::pending()).await {
                Incoming::Ledger(consensus::Event::Leadership(l)) => seen = l.term.0,
                Incoming::Wakeup(Wakeup::Node(Event::QuorumRead { id, .. })) => {
                    answers += 1;
                    assert!(id <= seen, "the answer to a read came before entry {id}: {seen} were taken in");
                }
                _ => {}
            }
        }
    }

    #[tokio::test]
    async fn what_ends_here_has_a_turn_while_the_ledger_catches_up() {
        let (mut inbox, senders) = inbox();
        (1..=1000).for_each(|n| senders.ledger.send(leadership(n)).expect("open"));
        senders.wakeups.send(failed()).expect("open");
        let mut before = 0;
        while let Incoming::Ledger(_) = inbox.next(std::future::pending()).await {
            before += 1;
        }
        assert_eq!(before, IN_A_ROW);
        // The answer to a read waits for all of it.
        senders.wakeups.send(Wakeup::Node(Event::QuorumRead { id: 1, confirmed: true })).expect("open");
        while let Incoming::Ledger(_) = inbox.next(std::future::pending()).await {
            before += 1;
        }
        assert_eq!(before, 1000);
    }
}
