//! What of an agent's output is kept. Pure: text in, text out.
//!
//! Not here: what the output means. Nothing is ever read out of it; how an agent ended says its exit status alone.

/// How many lines of each output stream are kept.
const KEEP_LINES: usize = 20;

/// The last lines of standard output, then those of standard error, empty ones left out.
pub fn last_lines(stdout: &str, stderr: &str) -> String {
    let tail = |text: &str| {
        let lines: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
        lines[lines.len().saturating_sub(KEEP_LINES)..].to_vec()
    };
    [tail(stdout), tail(stderr)].concat().join("\n")
}
