//! What of an agent's output is kept. Pure: text in, text out.
//!
//! Not here: how an agent ended, which its exit status alone says. The words are read for people, so that they need not
//! know what a BMC calls it; the one action whose words count is `in-force` (`in_force.rs`).

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

/// How ipmitool says that a BMC has no session left, over RMCP+ (status 01h of an open session response) and over IPMI 1.5
/// (completion codes 81h to 83h, and C4h of a challenge). The agents that call it print that only when they are verbose.
const NO_SESSION: [&str; 5] = [
    "insufficient resources for session",
    "No session slot available",
    "No slot available for given user",
    "No slot available to support user",
    "Session Challenge command failed: Out of space",
];

/// What a failed agent's words mean, where they are known and do not say it themselves: one line.
pub fn what_it_means(said: &str) -> Option<&'static str> {
    let is_told = said.contains("no free session");
    let is_meant = NO_SESSION.iter().any(|words| said.contains(words));
    (is_meant && !is_told).then_some("the device has no free session: others hold all of them")
}

fn lines(stdout: &str, stderr: &str, most: usize) -> String {
    let tail = |text: &str| {
        let lines: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
        lines[lines.len().saturating_sub(most)..].to_vec()
    };
    [tail(stdout), tail(stderr)].concat().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_a_free_session_is_told_as_such_once() {
        let foreign = "DEBUG: 1  Error in open session response message : insufficient resources for session\n\
                       ERROR: Failed: Unable to obtain correct plug status or plug is not available";
        assert!(what_it_means(foreign).is_some_and(|meaning| meaning.contains("no free session")));
        assert_eq!(what_it_means("the BMC has no free session (insufficient resources for session)"), None);
        assert_eq!(what_it_means("Error: Unable to establish IPMI v2 / RMCP+ session"), None);
    }
}
