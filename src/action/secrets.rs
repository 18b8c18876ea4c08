//! Takes secrets out of what a fence agent printed, before anybody else sees it.
//!
//! A secret is the value of an option that the agent's own metadata describes as one, or whose name says so, and the contents
//! of a file that such an option names. What a password script prints cannot be known here.

use crate::config::{is_secret_option, is_switch};
use std::collections::BTreeMap;

/// A file larger than this holds no password.
const FILE_MAX: u64 = 64 * 1024;
/// What stands in a secret's place.
const MASK: &str = "***";

/// The secrets among the options of one run.
pub struct Secrets {
    /// Longest first, so that a secret that is part of another one does not leave the rest of it visible.
    values: Vec<String>,
}

impl Secrets {
    /// Collects them; reads the files that options name. `declares`: whether the agent says of an option that it is one.
    pub fn of(options: &BTreeMap<String, String>, declares: impl Fn(&str) -> bool) -> Secrets {
        let mut values = Vec::new();
        for (name, value) in options {
            if !declares(name) && !is_secret_option(name) {
                continue;
            }
            let name = name.to_ascii_lowercase();
            if value.starts_with('/') {
                values.extend(contents(value));
            }
            if !name.ends_with("_file") && !name.ends_with("_script") && !is_switch(value) {
                values.push(value.clone());
            }
        }
        values.retain(|value| !value.is_empty());
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        values.dedup();
        Secrets { values }
    }

    /// The text without them.
    pub fn remove_from(&self, text: &str) -> String {
        self.values.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), MASK))
    }
}

/// The lines of a small, plain file; nothing when it is none.
fn contents(path: &str) -> Vec<String> {
    match std::fs::metadata(path) {
        Ok(about) if about.is_file() && about.len() <= FILE_MAX => {}
        _ => return Vec::new(),
    }
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| line.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_contents_of_secret_files_are_masked() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(&file, "from-file\n").expect("written");
        let options = [
            ("passwd", "hunter"),
            ("snmp_priv_passwd", "hunter2"),
            ("api_key", "k123"),
            ("ssh_key_only", "1"),
            ("password_file", file.path().to_str().expect("a path")),
            ("ip", "10.0.0.1"),
            ("word", "told"),
        ];
        let options = options.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let secrets = Secrets::of(&options, |option| option == "word");
        let text = secrets.remove_from("hunter2 hunter k123 from-file 10.0.0.1 told");
        assert_eq!(text, "*** *** *** *** 10.0.0.1 ***");
    }
}
