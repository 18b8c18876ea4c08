//! The distribution's units that would start a server in the way of a service: looked for at the start and every hour, by a
//! task of its own, so that the loop waits for nobody.
//!
//! Not here: which those are (`engine/postgresql/distribution.rs`).

use crate::config::{Config, Role};
use crate::engine::postgresql;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(3600);

/// What was found last.
#[derive(Clone, Debug, Default)]
pub(super) struct Rivals(Arc<Mutex<Vec<String>>>);

impl Rivals {
    /// Looks from now on. A witness has no database that anything could be in the way of.
    #[expect(clippy::disallowed_methods, reason = "how often it is looked")]
    pub fn look_for(config: Arc<Config>) -> Rivals {
        let rivals = Rivals::default();
        if config.me().role != Role::Database {
            return rivals;
        }
        let kept = rivals.clone();
        tokio::spawn(async move {
            let mut turn = tokio::time::interval(EVERY);
            loop {
                turn.tick().await;
                let found = postgresql::rivals(&config).await;
                found.iter().for_each(|rival| tracing::warn!("{rival}"));
                *kept.0.lock().unwrap_or_else(PoisonError::into_inner) = found;
            }
        });
        rivals
    }

    pub fn found(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
