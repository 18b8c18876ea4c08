//! The lab tests its judge of READY: on values, and on a power cut, with the word that was said and with its contrary.

use crate::client::writer::Ack;
use crate::cluster::Cluster;
use crate::harness::Scenario;
use crate::plan::Plan;
use crate::ready::{self, Blow, Bounds, Fault, Said, Verdict, Wrong};
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::time::Duration;

pub const SCENARIOS: [Scenario; 2] = [
    Scenario {
        name: "world_words_and_faults_are_compared",
        shows: "which words about a failover were wrong, by what came of the fault after them",
        within: Duration::from_secs(30),
        alone: false,
        run: compared,
    },
    Scenario {
        name: "a_wrong_ready_is_found",
        shows: "a power cut that READY was said before: right as it was, and wrong with a bound or a word that was not kept",
        within: Duration::from_secs(240),
        alone: false,
        run: found,
    },
];

const SECOND: u64 = 1_000_000_000;
const BOUNDS: Bounds = Bounds { failover: Duration::from_secs(10), started: Duration::from_secs(30) };

fn at(seconds: u64) -> Stamp {
    Stamp(seconds * SECOND)
}

fn fault(host: &str, blow: Blow, seconds: u64, ready: bool) -> Fault {
    let said = Said { ready, reasons: vec!["why".to_owned()], primary: Some("db1".to_owned()) };
    Fault { host: host.to_owned(), blow, at: at(seconds), said: Some(said) }
}

fn ack(address: &str, seconds: u64) -> Ack {
    Ack { id: 1, start: at(seconds), ack: at(seconds), address: address.to_owned() }
}

fn compared(_: &mut World) -> Result<()> {
    let names: BTreeMap<String, String> = [("a1", "db1"), ("a2", "db2")].map(|(a, n)| (a.into(), n.into())).into();
    let verdict = |faults: &[Fault], acks: &[Ack], end: u64| {
        ready::of(faults, 0, BOUNDS, acks, &names, at(end)).map(|(verdict, _)| verdict)
    };
    let (yes, no) = ([fault("db1", Blow::Gone, 100, true)], [fault("db1", Blow::Gone, 100, false)]);
    let soon = [ack("a1", 99), ack("a2", 105)];
    let late = [ack("a1", 99), ack("a2", 111)];
    let (leaves, stays) = ([fault("db1", Blow::Leaves, 100, true)], [fault("db1", Blow::Leaves, 100, false)]);
    let (until, handed) = ([ack("a1", 102), ack("a2", 111)], [ack("a1", 102), ack("a2", 105)]);
    let expected = [
        (verdict(&yes, &soon, 200), Some(Verdict::Right)),
        (verdict(&yes, &late, 200), Some(Verdict::Is(Wrong::Ready))),
        (verdict(&yes, &[], 200), Some(Verdict::Is(Wrong::Ready))),
        (verdict(&yes, &[], 105), Some(Verdict::Open("the scenario ended before"))),
        (verdict(&no, &soon, 200), Some(Verdict::Is(Wrong::NotReady))),
        (verdict(&no, &[ack("a1", 105)], 200), Some(Verdict::Right)),
        (verdict(&no, &late, 200), Some(Verdict::Right)),
        (verdict(&yes, &until, 200), Some(Verdict::Right)),
        (verdict(&leaves, &until, 200), Some(Verdict::Is(Wrong::Ready))),
        (verdict(&leaves, &handed, 200), Some(Verdict::Right)),
        (verdict(&stays, &until, 200), Some(Verdict::Right)),
        (verdict(&stays, &handed, 200), Some(Verdict::Is(Wrong::NotReady))),
        (verdict(&[fault("db1", Blow::DatabaseKilled, 100, true)], &late, 200), Some(Verdict::Right)),
        (verdict(&[fault("db1", Blow::Hurt, 100, true)], &[], 200), None),
        (verdict(&[fault("db2", Blow::Gone, 100, true)], &[], 200), None),
    ];
    for (number, (found, expected)) in expected.into_iter().enumerate() {
        ensure!(found == expected, "case {number}: {found:?}, and {expected:?} was expected");
    }
    let second = Some(Verdict::Open("something else failed too"));
    for (other, excused) in [
        (fault("db2", Blow::Gone, 95, true), true),
        (fault("db2", Blow::Gone, 50, true), false),
        (fault("db2", Blow::Gone, 105, true), true),
        (fault("db2", Blow::Gone, 115, true), false),
        (fault("db1", Blow::Device, 10, true), true),
    ] {
        let told = format!("{other:?}");
        let found = verdict(&[yes[0].clone(), other], &[], 200);
        ensure!((found == second) == excused, "{told}: {found:?}");
    }
    Ok(())
}

fn found(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::with_witness())?;
    let before = cluster.reign()?;
    let fault = Stamp::now();
    cluster.host(&before.primary)?.power_cut()?;
    let (after, _) = cluster.wait_failover(&before, fault, Duration::from_secs(60))?;
    cluster.judge(&[&before.primary, &after.primary])?;
    let seen = ready::seen(cluster.world)?.context("nothing was recorded")?;
    let [fault] = &seen.faults[..] else { anyhow::bail!("one fault was struck: {:?}", seen.faults) };
    let said = fault.said.clone().context("nobody was asked")?;
    ensure!(said.ready && said.primary.as_ref() == Some(&before.primary), "what was said: {said:?}");
    let contrary = Fault { said: Some(Said { ready: false, ..said }), ..fault.clone() };
    for (fault, expected) in [(fault, Verdict::Right), (&contrary, Verdict::Is(Wrong::NotReady))] {
        let found = ready::of(std::slice::from_ref(fault), 0, seen.bounds, &seen.acks, &seen.names, seen.end);
        ensure!(found.as_ref().is_some_and(|(found, _)| *found == expected), "{expected:?} was expected: {found:?}");
    }
    ready::judge(cluster.world)?;
    let never = Duration::from_millis(1);
    cluster.world.ready.promises(Bounds { failover: never, started: never });
    ensure!(ready::judge(cluster.world).is_err(), "nobody served within {never:?}, and READY passed for right");
    cluster.world.ready.allow(Wrong::Ready, "the promise was changed after it was given");
    Ok(())
}
