//! A row's runs in a few lines: median, smallest, largest, what was discarded and why, and where the time went.

use crate::status::Durations;
use std::time::Duration;

/// One measured run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// How long writes were not served.
    pub outage: Duration,
    /// The incident's own account of it.
    pub durations: Durations,
}

/// The middle of the sorted values; of two middles the upper one. `None` of nothing.
pub fn median<T: Ord + Copy>(mut values: Vec<T>) -> Option<T> {
    values.sort();
    values.get(values.len() / 2).copied()
}

/// Prints one row. `discarded` are sentences.
pub fn print(row: &str, target: Duration, runs: &[Run], discarded: &[String]) {
    let outages: Vec<Duration> = runs.iter().map(|run| run.outage).collect();
    let (Some(middle), Some(smallest), Some(largest)) =
        (median(outages.clone()), outages.iter().min(), outages.iter().max())
    else {
        println!("{row}: no run was measured; {} discarded", discarded.len());
        discarded.iter().for_each(|reason| println!("  discarded: {reason}"));
        return;
    };
    let verdict = if middle <= target { "met" } else { "MISSED" };
    println!(
        "{row}: median {} ms, min {} ms, max {} ms, {} runs, {} discarded; target {} ms {verdict}",
        middle.as_millis(),
        smallest.as_millis(),
        largest.as_millis(),
        runs.len(),
        discarded.len(),
        target.as_millis()
    );
    discarded.iter().for_each(|reason| println!("  discarded: {reason}"));
    let mut parts: Vec<String> = Vec::new();
    for (at, (name, _)) in Durations::default().parts().iter().enumerate() {
        let values: Vec<u64> = runs.iter().filter_map(|run| run.durations.parts()[at].1).collect();
        parts.push(median(values).map_or(format!("{name} -"), |ms| format!("{name} {ms}")));
    }
    // What is left is the client's: noticing, connecting, the first write.
    let client = |run: &Run| {
        let known: u64 = run.durations.parts().iter().filter_map(|(_, ms)| *ms).sum();
        (run.outage.as_millis() as u64).saturating_sub(known)
    };
    parts.push(format!("client {}", median(runs.iter().map(client).collect()).unwrap_or_default()));
    println!("  medians in ms: {}", parts.join(", "));
}
