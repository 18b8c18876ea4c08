//! Asking a person before something is done by force.

use super::exit::UsageError;
use crate::types::Quoted;
use std::io::{BufRead, IsTerminal, Write};

/// Asks the person at the terminal to type `word`, after `warning` was shown. Without a terminal, `--yes` is required:
/// a script must say in its own text that it means it.
pub fn by_typing(word: &str, warning: &str, yes: bool) -> anyhow::Result<bool> {
    if yes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        return Err(
            UsageError("this asks for confirmation, and standard input is no terminal: add --yes".into()).into()
        );
    }
    let mut screen = std::io::stderr().lock();
    write!(screen, "{warning}\nType {} to go on: ", Quoted(word))?;
    screen.flush()?;
    let mut typed = String::new();
    std::io::stdin().lock().read_line(&mut typed)?;
    if typed.trim() == word {
        return Ok(true);
    }
    writeln!(screen, "Nothing was done.")?;
    Ok(false)
}
