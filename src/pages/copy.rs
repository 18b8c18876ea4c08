//! The rewind or copy of a database on the page: how far it is, or why the last one came to nothing and when the next one
//! begins.
//!
//! Not here: how far it is (`engine`), and when it is tried again (`plan/keeper/rejoins.rs`).

use super::OwnDatabase;
use crate::api::status::CopyStatus;
use crate::types::{CopyHealth, CopyProgress, Instant, Span};
use std::time::Duration;

/// That of the answering node.
pub(super) fn own(own: &OwnDatabase, now: Instant) -> Option<CopyStatus> {
    let failed = own.failed_copy.as_ref();
    let tries = failed.map_or(0, |failed| failed.tries);
    let mut status = own.copy.map(|progress| under_way(progress, tries)).or_else(|| failed.map(|_| nothing(tries)))?;
    let Some(failed) = failed else { return Some(status) };
    // One whose time has come waits for somebody to follow.
    let next = failed.again_at.filter(|at| *at > now).map(|at| at.since(now));
    if own.copy.is_none() {
        let next = next.map(|left| format!("; it is tried again in {}", Span(Duration::from_secs(left.as_secs()))));
        status.what = format!("{}: {}{}", times(tries), failed.error, next.unwrap_or_default());
    }
    status.error = Some(failed.error.clone());
    status.next_ms = next.map(|left| left.as_millis() as u64);
    Some(status)
}

/// That of another node, as it says itself.
pub(super) fn of_another(health: CopyHealth) -> Option<CopyStatus> {
    Some(match health {
        CopyHealth::UnderWay(progress) => under_way(progress, 0),
        CopyHealth::Failed(tries) => {
            CopyStatus { what: format!("{}; why is in `regent status` there", times(tries)), ..nothing(tries) }
        }
    })
}

fn times(tries: u32) -> String {
    match tries {
        0 | 1 => "its copy failed".to_owned(),
        tries => format!("its copy failed {tries} times"),
    }
}

fn under_way(progress: CopyProgress, failed: u32) -> CopyStatus {
    let CopyProgress { stage, done, total, left } = progress;
    CopyStatus {
        stage: Some(stage),
        done_bytes: total.map(|_| done),
        total_bytes: total,
        percent: progress.percent(),
        left_ms: left.map(|left| left.saturating_mul(1000)),
        what: progress.to_string(),
        ..nothing(failed)
    }
}

fn nothing(failed: u32) -> CopyStatus {
    CopyStatus {
        stage: None,
        done_bytes: None,
        total_bytes: None,
        percent: None,
        left_ms: None,
        failed,
        error: None,
        next_ms: None,
        what: times(failed),
    }
}
