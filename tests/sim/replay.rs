//! The event log of a run, in words: what an entry of the ledger says, and stepping through a kept log.

use regent::ledger::{Answer, Entry, State};
use regent::types::LogIndex;
use std::io::{BufRead, IsTerminal, Write};

/// One entry of the ledger, with what it recorded in an incident.
pub fn entry_in_words(index: LogIndex, before: &State, after: &State, entry: &Entry, answer: &Answer) -> String {
    let name = entry.command.name();
    let mut words = match answer {
        Answer::Done(_) => format!("ledger {index}: {name}"),
        Answer::Refused(why) => format!("ledger {index}: {name} is refused: {why}"),
    };
    if let Some(service) = entry.command.service() {
        words += &format!(" ({service})");
    }
    for (id, incident) in &after.incidents {
        let known = before.incidents.get(id).map_or(0, |i| i.recorded());
        for step in incident.steps_after(known) {
            words += &format!("; incident {id}: {}", step.what);
        }
    }
    words
}

/// Steps through a kept log: a line for each key where there is a terminal, else all of it.
pub fn step_through(path: &str) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
    let asks = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if asks {
        println!("Enter: the next step; a number: so many; a word: on to the next line with it; q: the end");
    }
    let mut lines = text.lines();
    let (mut left, mut wanted) = (0_usize, None::<String>);
    for (number, line) in lines.by_ref().enumerate() {
        println!("{line}");
        let is_head = number < 2;
        if !asks || is_head || line.contains("VIOLATION") && wanted.take().is_some() {
            continue;
        }
        if let Some(word) = &wanted {
            if !line.contains(word.as_str()) {
                continue;
            }
            wanted = None;
        }
        if left > 1 {
            left -= 1;
            continue;
        }
        print!("> ");
        std::io::stdout().flush().map_err(|e| e.to_string())?;
        let mut said = String::new();
        std::io::stdin().lock().read_line(&mut said).map_err(|e| e.to_string())?;
        match said.trim() {
            "q" => return Ok(()),
            "" => left = 1,
            other => match other.parse() {
                Ok(n) => left = n,
                Err(_) => wanted = Some(other.to_owned()),
            },
        }
    }
    Ok(())
}
