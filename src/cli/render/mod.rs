//! Turning answers into text for people: pure functions from a value to a string, compared with `tests/golden/cli`.
//!
//! Not here: any judgement, and any reading of the clock: ages are computed from the times in the value.

mod incident;
pub mod lost;
mod status;
mod words;

pub use incident::{history, incident};
pub use status::{primaries, status};
pub use words::{node_state, phase};

use crate::api::admin::Check;
use comfy_table::{Cell, Table, presets};

/// A sentence, and indented lines below it.
pub fn with_details(sentence: &str, details: &[String]) -> String {
    let mut text = sentence.to_owned();
    for detail in details {
        text += &format!("\n  {detail}");
    }
    text
}

/// A dry run.
pub fn plan(steps: &[String], checks: &[Check]) -> String {
    let mut text = String::from("Nothing was touched. The plan:\n");
    for (number, step) in steps.iter().enumerate() {
        text += &format!("  {}. {step}\n", number + 1);
    }
    text += "Checks:\n";
    for Check { passed, warning, what } in checks {
        let mark = match (passed, warning) {
            (false, _) => "FAILED",
            (true, true) => "WARN  ",
            (true, false) => "ok    ",
        };
        text += &format!("  {mark} {what}\n");
    }
    let failed = checks.iter().filter(|check| !check.passed).count();
    text += &match failed {
        0 => "It would begin now.\n".to_owned(),
        1 => "It would be refused: one check failed.\n".to_owned(),
        n => format!("It would be refused: {n} checks failed.\n"),
    };
    text
}

/// Columns without lines, indented by one space, nothing at the end of a line.
fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().map(|title| Cell::new(title.to_uppercase())));
    for row in rows {
        table.add_row(row);
    }
    let mut text = String::new();
    for line in table.lines() {
        text += &format!(" {}\n", line.trim_end());
    }
    text
}

#[cfg(test)]
mod golden_test;
#[cfg(test)]
mod lost_golden_test;
#[cfg(test)]
pub(super) mod scenes_test;
