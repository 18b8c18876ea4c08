//! What the ledger is to hear of a directory that was made to follow: how, what was kept, and on whose order. It is said
//! until the ledger has it.
//!
//! Not here: how often that is tried (`rejoins.rs`), and saying it (`node`).

use super::Keeper;

/// How the directory was made to follow, for the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Back {
    pub how: String,
    /// Where what was its own is kept.
    pub kept: Option<String>,
    /// The order to copy it anew that was carried out so.
    pub order: Option<u64>,
}

impl Keeper {
    /// How the directory was made to follow, and where what was its own is kept, if the ledger is to hear it.
    pub fn unsaid_rejoin(&self) -> Option<&Back> {
        self.rejoined.first()
    }

    /// Where what was its own is kept, as far as the ledger is still to hear of it.
    pub fn unsaid_folders(&self) -> impl Iterator<Item = &String> {
        self.rejoined.iter().filter_map(|back| back.kept.as_ref())
    }

    /// The ledger has the rejoin that [`Keeper::unsaid_rejoin`] named.
    pub fn rejoin_said(&mut self, said: &Back) {
        self.rejoined.retain(|back| back != said);
    }

    /// An earlier daemon may have died before it had said what its rejoin kept.
    pub(super) fn finds_kept(&mut self, folders: &[String]) {
        for folder in folders {
            if self.found_kept.insert(folder.clone()) {
                let how = "an earlier daemon may not have said so".to_owned();
                self.rejoined.push(Back { how, kept: Some(folder.clone()), order: None });
            }
        }
    }

    /// That nothing was to be done need not be said beside something that is still to be said.
    pub(super) fn is_back(&mut self, back: Back) {
        let counts = |back: &Back| back.kept.is_some() || back.order.is_some();
        if counts(&back) {
            self.rejoined.retain(counts);
        }
        if counts(&back) || self.rejoined.is_empty() {
            self.rejoined.push(back);
        }
    }
}
