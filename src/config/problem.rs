//! What is wrong with a configuration file: where, which key, what was expected, and the nearest name that would do.
//!
//! Not here: the rules themselves (`check.rs`, `timing.rs`).

use std::collections::BTreeMap;
use std::fmt;

/// One thing that is wrong with the file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The file, as the caller named it.
    pub origin: String,
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// The whole path of the key, as in `detector.interval`; empty where the file is not TOML.
    pub key: String,
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.origin, self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// Collects problems, and knows where in the file every key stands.
pub(super) struct Problems<'a> {
    origin: &'a str,
    text: &'a str,
    /// Byte offsets by the whole path of a key.
    places: BTreeMap<String, usize>,
    found: Vec<(usize, Problem)>,
}

impl<'a> Problems<'a> {
    pub(super) fn new(text: &'a str, origin: &'a str) -> Self {
        Problems { origin, text, places: BTreeMap::new(), found: Vec::new() }
    }

    /// Remembers that `key` stands at the byte `offset`.
    pub(super) fn place(&mut self, key: &str, offset: usize) {
        self.places.insert(key.to_owned(), offset);
    }

    /// The path of every key that was written.
    #[cfg(test)]
    pub(super) fn written(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// Whether `key` is written in the file.
    pub(super) fn is_written(&self, key: &str) -> bool {
        self.places.contains_key(key)
    }

    /// Adds a problem with a key. A key that is not in the file is shown at the nearest table around it that is.
    pub(super) fn add(&mut self, key: &str, message: impl Into<String>) {
        self.add_at(self.offset(key), key, message.into(), None);
    }

    /// Adds a problem with a key, and what to do about it.
    pub(super) fn add_hint(&mut self, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.add_at(self.offset(key), key, message.into(), Some(hint.into()));
    }

    pub(super) fn add_at(&mut self, offset: usize, key: &str, message: String, hint: Option<String>) {
        let before = &self.text[..offset];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        let problem = Problem { origin: self.origin.to_owned(), line, column, key: key.to_owned(), message, hint };
        if !self.found.iter().any(|(_, p)| *p == problem) {
            self.found.push((offset, problem));
        }
    }

    /// Whether there is a problem with a key in one of these top-level tables.
    pub(super) fn touch(&self, tables: &[&str]) -> bool {
        self.found.iter().any(|(_, p)| tables.contains(&p.key.split('.').next().unwrap_or("")))
    }

    /// Whether there is a problem with this key or one inside it.
    pub(super) fn touch_under(&self, key: &str) -> bool {
        self.found.iter().any(|(_, p)| p.key.starts_with(key))
    }

    pub(super) fn count(&self) -> usize {
        self.found.len()
    }

    /// Everything found, in the order of the file.
    pub(super) fn into_sorted(mut self) -> Vec<Problem> {
        self.found.sort_by_key(|(offset, _)| *offset);
        self.found.into_iter().map(|(_, problem)| problem).collect()
    }

    fn offset(&self, key: &str) -> usize {
        let mut path = key;
        loop {
            if let Some(offset) = self.places.get(path) {
                return *offset;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return 0,
            }
        }
    }
}

/// `did you mean "X"?`, or the list of what there is when nothing is near.
pub(super) fn suggest<'n>(given: &str, names: impl IntoIterator<Item = &'n str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    match did_you_mean(given, &names) {
        Some(question) => question,
        None if names.is_empty() => "there is none to choose from".to_owned(),
        None => format!("expected one of: {}", names.join(", ")),
    }
}

/// `did you mean "X"?` for the name that needs the fewest edits, when they are few enough for a slip of the keyboard.
pub(super) fn did_you_mean(given: &str, names: &[&str]) -> Option<String> {
    let (distance, name) = names.iter().map(|name| (edits(given, name), *name)).min()?;
    (distance <= 1 + given.chars().count() / 4).then(|| format!("did you mean \"{name}\"?"))
}

/// How many insertions, deletions, replacements and swaps of neighbours lead from one text to the other (the distance
/// of Damerau and Levenshtein, in its restricted form).
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut next = vec![i + 1];
        for j in 0..b.len() {
            let replaced = row[j] + usize::from(a[i] != b[j]);
            let mut least = replaced.min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                least = least.min(before[j - 1] + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (a, b, expected) in
            [("", "", 0), ("abc", "", 3), ("intervall", "interval", 1), ("kitten", "sitting", 3), ("bd1", "db1", 1)]
        {
            assert_eq!(edits(a, b), expected, "{a} {b}");
            assert_eq!(edits(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn a_suggestion_is_near_or_none() {
        assert_eq!(suggest("witnes", ["database", "witness"]), "did you mean \"witness\"?");
        assert_eq!(suggest("arbiter", ["database", "witness"]), "expected one of: database, witness");
    }

    #[test]
    fn a_missing_key_is_shown_at_its_table() {
        let mut problems = Problems::new("a = 1\n[b]\nc = 2\n", "x.toml");
        problems.place("a", 0);
        problems.place("b", 7);
        problems.add("b.d", "missing");
        problems.add("e", "missing");
        let shown: Vec<String> = problems.into_sorted().iter().map(Problem::to_string).collect();
        assert_eq!(shown, ["x.toml:1: e: missing", "x.toml:2: b.d: missing"]);
    }
}
