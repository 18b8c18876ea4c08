//! A page of the documents as somebody follows it on a host that boots: every line as it stands.
//!
//! Not here: what the pages say (`page.rs`), and the installation (`install.rs`).

use crate::host::Host;
use crate::page::Page;
use crate::ready::Blow;
use anyhow::Result;
use std::time::Duration;

pub const OPERATIONS: Page = Page { text: include_str!("../../docs/operations.md") };

/// How long a host may take from the word `reboot` until it is up again: an order to leave has 150 s at most.
pub const UP_AGAIN: Duration = Duration::from_secs(180);

impl Host {
    /// Types the lines of a block. Brings what the last one printed.
    pub fn follow(&self, block: &[String]) -> Result<String> {
        let mut said = String::new();
        for line in block {
            said = self.type_in(line)?;
        }
        Ok(said)
    }

    /// Types one line. After a `reboot` the host is up again when this returns.
    pub fn type_in(&self, line: &str) -> Result<String> {
        println!("{}: {line}", self.name);
        if line != "sudo reboot" {
            return self.shell(line);
        }
        let before = self.machine.boots();
        self.struck(Blow::Leaves);
        // The host may be gone before its own words arrive.
        let _ = self.output("sh", &["-c", line])?;
        self.machine.wait_boot(before, UP_AGAIN).map(|()| String::new())
    }
}
