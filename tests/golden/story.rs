//! The form of a story: comments, commands one a line, `----`, and what comes out; an empty line ends a paragraph. Only
//! the form: what a command means is its stage's.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

/// One command: words, then `key=value`. A word or a key that nobody asked about is a mistake in the story.
pub struct Line<'a> {
    text: &'a str,
    words: Vec<&'a str>,
    values: BTreeMap<&'a str, &'a str>,
    asked: RefCell<BTreeSet<&'a str>>,
}

impl<'a> Line<'a> {
    pub fn new(text: &'a str) -> Self {
        let (pairs, words): (Vec<&str>, Vec<&str>) = text.split_whitespace().partition(|word| word.contains('='));
        let values = pairs.into_iter().filter_map(|pair| pair.split_once('=')).collect();
        Line { text, words, values, asked: RefCell::default() }
    }

    pub fn verb(&self) -> &'a str {
        self.word(0)
    }

    pub fn word(&self, number: usize) -> &'a str {
        let word = *self.words.get(number).unwrap_or_else(|| self.fail(&format!("word {number} is missing")));
        self.asked.borrow_mut().insert(word);
        word
    }

    /// Whether the word stands anywhere after the verb.
    pub fn has(&self, word: &str) -> bool {
        let found = self.words.iter().skip(1).find(|w| **w == word);
        self.asked.borrow_mut().extend(found);
        found.is_some()
    }

    pub fn get(&self, key: &str) -> Option<&'a str> {
        let (key, value) = self.values.get_key_value(key)?;
        self.asked.borrow_mut().insert(key);
        Some(value)
    }

    pub fn need(&self, key: &str) -> &'a str {
        self.get(key).unwrap_or_else(|| self.fail(&format!("{key}= is missing")))
    }

    pub fn parse<T: std::str::FromStr>(&self, text: &str) -> T {
        text.parse().unwrap_or_else(|_| self.fail(&format!("{text:?} is not understood")))
    }

    pub fn number(&self, key: &str) -> Option<u64> {
        self.get(key).map(|text| self.parse(text))
    }

    pub fn duration(&self, text: &str) -> Duration {
        let (number, unit) = text.split_at(text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len()));
        let number: u64 = self.parse(number);
        match unit {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            _ => self.fail(&format!("{text:?}: expected 12s or 1500ms")),
        }
    }

    /// A text for people, written with `_` for spaces.
    pub fn say(&self, key: &str, otherwise: &str) -> String {
        self.get(key).unwrap_or(otherwise).replace('_', " ")
    }

    pub fn fail(&self, why: &str) -> ! {
        panic!("in the line {:?}: {why}", self.text)
    }

    fn check_all_asked(&self) {
        let asked = self.asked.borrow();
        let unknown: Vec<_> = self.words.iter().chain(self.values.keys()).filter(|w| !asked.contains(**w)).collect();
        if !unknown.is_empty() {
            self.fail(&format!("{unknown:?} means nothing here"));
        }
    }
}

/// What plays a story.
pub trait Stage {
    /// Runs one command; what it shows.
    fn run(&mut self, line: &Line) -> String;
}

/// The file with every expectation replaced by what comes out.
pub fn replay(text: &str, stage: &mut dyn Stage) -> String {
    let mut out = String::new();
    let mut shown = String::new();
    let mut skipping = false;
    for line in text.lines() {
        match line {
            "----" => {
                skipping = true;
                write!(out, "----\n{}", std::mem::take(&mut shown)).expect("a string takes everything");
            }
            "" => {
                skipping = false;
                out.push('\n');
            }
            _ if skipping => {}
            _ => {
                writeln!(out, "{line}").expect("a string takes everything");
                if !line.starts_with('#') {
                    let line = Line::new(line);
                    let now = stage.run(&line);
                    // Seen only where the story fails.
                    println!("{}\n{now}", line.text);
                    shown += &now;
                    line.check_all_asked();
                }
            }
        }
    }
    assert!(shown.is_empty(), "the last paragraph has no ---- after its commands");
    out
}
