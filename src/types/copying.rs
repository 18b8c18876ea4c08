//! How far the making of a standby is, as a host sees it and as its heartbeat says it.
//!
//! Not here: the action itself (`database.rs`), and where the numbers come from (`engine`).

use super::Size;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// What is done at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyStage {
    Rewinding,
    Copying,
    /// The copy is there, and is read once more.
    Verifying,
}

/// A rewind or copy that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyProgress {
    pub stage: CopyStage,
    /// Bytes that arrived.
    #[serde(default)]
    pub done: u64,
    /// How many will arrive in all, as far as it is known; WAL that is written meanwhile is not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// In seconds, if it goes on as until now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<u64>,
}

/// What others are told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyHealth {
    UnderWay(CopyProgress),
    /// So many in a row came to nothing; why is told on that host.
    Failed(u32),
}

impl CopyProgress {
    /// It has just begun.
    pub fn begins(stage: CopyStage) -> Self {
        CopyProgress { stage, done: 0, total: None, left: None }
    }

    /// A copy that has come so far after this time.
    pub fn copied(done: u64, total: u64, after: Duration) -> Self {
        let rest = u128::from(total.saturating_sub(done)) * after.as_millis();
        let left = rest.checked_div(u128::from(done) * 1000).and_then(|left| u64::try_from(left).ok());
        CopyProgress { stage: CopyStage::Copying, done, total: Some(total), left }
    }

    /// How much of it is done; a copy is never said to be whole before it is.
    pub fn percent(&self) -> Option<u8> {
        let total = self.total.filter(|total| *total > 0)?;
        u8::try_from((u128::from(self.done) * 100 / u128::from(total)).min(99)).ok()
    }
}

impl fmt::Display for CopyProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.stage {
            CopyStage::Rewinding => return f.write_str("it is being rewound"),
            CopyStage::Verifying => return f.write_str("its copy is compared with the manifest"),
            CopyStage::Copying => f.write_str("it is being copied")?,
        }
        if let (Some(percent), Some(total)) = (self.percent(), self.total) {
            write!(f, ": {percent} % ({} of {})", Size(self.done), Size(total))?;
        }
        match self.left {
            None => Ok(()),
            Some(left @ ..120) => write!(f, ", about {left} s left"),
            Some(left @ ..7200) => write!(f, ", about {} min left", left.div_ceil(60)),
            Some(left) => write!(f, ", about {} h left", left.div_ceil(3600)),
        }
    }
}

impl CopyHealth {
    /// The same but for how far it is, which moves all the time.
    pub fn is_alike(&self, other: &CopyHealth) -> bool {
        match (self, other) {
            (CopyHealth::UnderWay(a), CopyHealth::UnderWay(b)) => a.stage == b.stage,
            (a, b) => a == b,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn the_time_left_follows_from_what_is_done() {
        let quarter = CopyProgress::copied(GIB, 4 * GIB, Duration::from_secs(60));
        assert_eq!((quarter.percent(), quarter.left), (Some(25), Some(180)));
        assert_eq!(quarter.to_string(), "it is being copied: 25 % (1.0 GiB of 4.0 GiB), about 3 min left");
        let begun = CopyProgress::copied(0, 4 * GIB, Duration::from_secs(60));
        assert_eq!((begun.percent(), begun.left), (Some(0), None), "nothing says how long it takes");
        let nearly = CopyProgress::copied(5 * GIB, 4 * GIB, Duration::from_secs(60));
        assert_eq!((nearly.percent(), nearly.left), (Some(99), Some(0)), "the source has grown");
        assert_eq!(CopyProgress::copied(0, 0, Duration::ZERO).percent(), None);
    }

    #[test]
    fn how_far_it_is_is_no_news_to_others() {
        let at = |done| CopyHealth::UnderWay(CopyProgress::copied(done, GIB, Duration::from_secs(1)));
        assert!(at(1).is_alike(&at(2)) && !at(1).is_alike(&CopyHealth::Failed(1)));
        assert!(!CopyHealth::Failed(1).is_alike(&CopyHealth::Failed(2)));
        assert!(!at(1).is_alike(&CopyHealth::UnderWay(CopyProgress::begins(CopyStage::Verifying))));
    }

    /// The heartbeat is small; this is all that a copy adds.
    #[test]
    fn what_rides_along_is_short() {
        let largest =
            CopyProgress { stage: CopyStage::Verifying, done: 1 << 50, total: Some(1 << 50), left: Some(99_999) };
        let written = serde_json::to_string(&CopyHealth::UnderWay(largest)).expect("numbers and words");
        assert!(written.len() < 120, "{written}");
        assert_eq!(serde_json::from_str::<CopyHealth>(&written).expect("read"), CopyHealth::UnderWay(largest));
    }
}
