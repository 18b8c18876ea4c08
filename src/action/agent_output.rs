//! What of an agent's output is kept. Pure: text in, text out.
//!
//! Not here: what the output means. How an agent ended says its exit status alone; the one action of which more is
//! read is `in-force` (`in_force.rs`).

/// How many lines of each output stream are kept.
const KEEP_LINES: usize = 20;

/// The last lines of standard output, then those of standard error, empty ones left out.
pub fn last_lines(stdout: &str, stderr: &str) -> String {
    lines(stdout, stderr, KEEP_LINES)
}

/// All lines, likewise: for an action whose lines are its answer.
pub fn all_lines(stdout: &str, stderr: &str) -> String {
    lines(stdout, stderr, usize::MAX)
}

fn lines(stdout: &str, stderr: &str, most: usize) -> String {
    let tail = |text: &str| {
        let lines: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
        lines[lines.len().saturating_sub(most)..].to_vec()
    };
    [tail(stdout), tail(stderr)].concat().join("\n")
}
