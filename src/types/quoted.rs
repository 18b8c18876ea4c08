//! Text that somebody else gave, in a sentence of ours: in double quotes, so that its ends are seen, and on one line
//! whatever it holds.
//!
//! Not here: quoting for another program to read (a shell, SQL).

use std::fmt::{self, Write};

/// Shows text in double quotes; quotes, backslashes and control characters in it are escaped.
#[derive(Clone, Copy)]
pub struct Quoted<T>(pub T);

impl<T: fmt::Display> fmt::Display for Quoted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        write!(Escaped(f), "{}", self.0)?;
        f.write_char('"')
    }
}

/// Escapes what goes through it.
struct Escaped<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '"' | '\\' => write!(self.0, "\\{c}")?,
                c if c.is_control() => write!(self.0, "{}", c.escape_default())?,
                c => self.0.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_a_text_are_seen_and_it_stays_on_one_line() {
        let shown = |text: &str| Quoted(text).to_string();
        assert_eq!(["db1", "", " db 1 ", "Zürich's"].map(shown), [r#""db1""#, r#""""#, r#"" db 1 ""#, r#""Zürich's""#]);
        assert_eq!(shown("a\nb\t\"c\\\0\u{1b}[1m"), r#""a\nb\t\"c\\\u{0}\u{1b}[1m""#);
        let path = std::path::Path::new("/var/lib/a\nb");
        assert_eq!(Quoted(path.display()).to_string(), r#""/var/lib/a\nb""#);
    }
}
