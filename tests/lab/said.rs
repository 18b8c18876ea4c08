//! What `regent status` says about a node, whoever is asked.
//!
//! Not here: in which field it says so.

use crate::cluster::Cluster;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::time::{Duration, Instant};

impl Cluster<'_> {
    /// Waits until the status on every node of `asked` says `words` about `node` (or does not, with `said` false).
    pub fn wait_said(&self, asked: &[&str], node: &str, words: &str, said: bool, within: Duration) -> Result<()> {
        let end = Instant::now() + within;
        for other in asked {
            loop {
                let status = self.regent(other, &["status", "--json"])?;
                let text = String::from_utf8_lossy(&status.stdout).into_owned();
                let json: Value = serde_json::from_str(&text).with_context(|| format!("status on {other}: {text}"))?;
                if says(&json, node, words) == said {
                    break;
                }
                if Instant::now() >= end {
                    let not = if said { "does not say" } else { "still says" };
                    bail!("the status on {other} {not} of {node}: {words:?}\n{text}");
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        Ok(())
    }
}

/// In what it shows of that node, or in any sentence that names it.
fn says(status: &Value, node: &str, words: &str) -> bool {
    status["nodes"][node].to_string().contains(words) || sentence(status, node, words)
}

fn sentence(value: &Value, node: &str, words: &str) -> bool {
    match value {
        Value::String(text) => text.contains(words) && text.contains(node),
        Value::Array(items) => items.iter().any(|item| sentence(item, node, words)),
        Value::Object(fields) => fields.values().any(|item| sentence(item, node, words)),
        _ => false,
    }
}
