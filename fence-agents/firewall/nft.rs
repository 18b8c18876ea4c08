//! The nft program: a rule set goes in as text, the kernel's present rules come out as JSON. Each call is one atomic
//! transaction.

use crate::contract::command::{self, CommandError};
use std::time::Duration;

/// How long one call may take; it waits for nothing but the kernel.
const LIMIT: Duration = Duration::from_secs(5);

/// The name of the table, in the family `inet`.
pub const TABLE: &str = "regent_fence";

/// What nft could not do.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("nft printed something that is not JSON")]
    Json(#[from] serde_json::Error),
}

/// The nft program at one path.
pub struct Nft {
    program: String,
}

impl Nft {
    pub fn new(program: &str) -> Nft {
        Nft { program: program.to_owned() }
    }

    async fn call(&self, arguments: &[&str], input: &str) -> Result<String, NftError> {
        let ended = command::run(command::program(&self.program, arguments), input, LIMIT).await?;
        Ok(ended.success(&self.program)?)
    }

    /// Applies a rule set, all of it or nothing.
    pub async fn apply(&self, rules: &str) -> Result<(), NftError> {
        self.call(&["-f", "-"], rules).await.map(drop)
    }

    /// Lets the kernel check a rule set without applying it.
    pub async fn check(&self, rules: &str) -> Result<(), NftError> {
        self.call(&["-c", "-f", "-"], rules).await.map(drop)
    }

    /// Everything in regent's table, as nft's JSON objects; nothing when there is no such table.
    pub async fn ruleset(&self) -> Result<Vec<serde_json::Value>, NftError> {
        // The whole rule set would be long on a busy host, and listing a missing table is an error: look first.
        let tables = self.call(&["list", "tables", "inet"], "").await?;
        if !tables.lines().any(|line| line.trim() == format!("table inet {TABLE}")) {
            return Ok(Vec::new());
        }
        let text = self.call(&["-j", "list", "table", "inet", TABLE], "").await?;
        let mut document: serde_json::Value = serde_json::from_str(&text)?;
        match document.get_mut("nftables").map(serde_json::Value::take) {
            Some(serde_json::Value::Array(objects)) => Ok(objects),
            _ => Ok(Vec::new()),
        }
    }
}
