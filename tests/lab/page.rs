//! A page of the documents: the commands of its blocks, so that page and test cannot part.
//!
//! Not here: who types them (`following.rs`), what must come of it (`scenarios/pages.rs`), and that every command is known
//! (`tests/docs.rs`).

use anyhow::{Context, Result, bail};

/// A page.
pub struct Page {
    pub text: &'static str,
}

pub const BY_HAND: Page = Page { text: include_str!("../../docs/by-hand.md") };

pub const NO_PRIMARY: Page = Page { text: include_str!("../../docs/no-primary.md") };

pub const RECOVERY: Page = Page { text: include_str!("../../docs/recovery.md") };

impl Page {
    /// The commands of all `sh` blocks below a heading, up to the next one; each block by itself.
    pub fn blocks(&self, heading: &str) -> Result<Vec<Vec<String>>> {
        let below = self
            .text
            .lines()
            .skip_while(|line| line.trim_start_matches('#').trim() != heading || !line.starts_with('#'));
        let mut blocks: Vec<Vec<String>> = Vec::new();
        let (mut language, mut begun) = (None, String::new());
        for line in below.skip(1) {
            match (line.strip_prefix("```"), language) {
                (Some(named), None) => {
                    language = Some(named);
                    blocks.extend((named == "sh").then(Vec::new));
                }
                (Some(_), Some(_)) => language = None,
                (None, Some("sh")) => {
                    let (part, goes_on) = line.strip_suffix('\\').map_or((line, false), |part| (part, true));
                    begun += part;
                    if !goes_on {
                        let command = std::mem::take(&mut begun);
                        blocks.last_mut().context("a block has begun")?.push(command.trim().to_owned());
                    }
                }
                (None, Some(_)) => {}
                (None, None) if line.starts_with('#') => break,
                (None, None) => {}
            }
        }
        if blocks.is_empty() {
            bail!("the page has no commands below {heading:?}");
        }
        Ok(blocks)
    }

    /// One block, by its number below its heading.
    pub fn block(&self, heading: &str, number: usize) -> Result<Vec<String>> {
        let blocks = self.blocks(heading)?;
        blocks.into_iter().nth(number).with_context(|| format!("{heading:?} has no block {number}"))
    }
}
