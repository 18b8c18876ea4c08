//! Writing to the terminal or a pipe. `println!` would panic, and so abort, when the reader of a pipe goes away.

use std::io::Write;

/// Text for whoever asked: standard output. A reader that has gone (`| head`) is no error.
pub fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    let _ = write!(out, "{text}{newline}").and_then(|()| out.flush());
}

/// One JSON value on a line of its own, at once.
pub fn say_json(value: &impl serde::Serialize) {
    say(&serde_json::to_string(value).expect("the schema has string keys and finite numbers only"));
}

/// One JSON document, indented.
pub fn say_json_document(value: &impl serde::Serialize) {
    say(&serde_json::to_string_pretty(value).expect("the schema has string keys and finite numbers only"));
}

/// What went wrong: standard error.
pub fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "regent: {text}");
}

/// What is to be known before it goes on: standard error.
pub fn warn(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "regent: warning: {text}");
}

/// What is being waited for: standard error, so that standard output holds the result alone.
pub fn progress(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "… {text}");
}
