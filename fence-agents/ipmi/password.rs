//! Where the BMC's password comes from: standard input, a file, or a program. Never from the command line.

use crate::contract::Request;
use crate::contract::command::{self, CommandError};
use regent::rights::{self, SecretError};
use std::path::PathBuf;
use std::time::Duration;

/// How long a password program may take.
const SCRIPT_LIMIT: Duration = Duration::from_secs(5);

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    #[error("password_file {path}", path = path.display())]
    Secret { path: PathBuf, source: SecretError },
    #[error("{place} is empty: its first line should be the password")]
    Empty { place: String },
    #[error("password_script")]
    Script(#[from] CommandError),
}

/// The password, from the first of `password`, `password_file`, `password_script` that was given.
pub async fn from_request(request: &Request) -> Result<Option<String>, PasswordError> {
    if let Some(password) = request.text("password") {
        return Ok(Some(password.to_owned()));
    }
    if let Some(path) = request.text("password_file") {
        return from_file(path.into()).map(Some);
    }
    if let Some(script) = request.text("password_script") {
        let program = command::program(script, std::iter::empty::<&str>());
        let said = command::run(program, "", SCRIPT_LIMIT).await?;
        if !said.status.success() {
            // Nothing that it printed may be repeated: it could be the password.
            let failed = Err(CommandError::Failed { program: script.to_owned(), status: said.status, said: "".into() });
            return Ok(failed?);
        }
        return first_line(&said.stdout, script).map(Some);
    }
    Ok(None)
}

fn from_file(path: PathBuf) -> Result<String, PasswordError> {
    let text = rights::read_secret(&path).map_err(|source| PasswordError::Secret { path: path.clone(), source })?;
    first_line(&String::from_utf8_lossy(&text), &path.display().to_string())
}

fn first_line(text: &str, place: &str) -> Result<String, PasswordError> {
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() { Err(PasswordError::Empty { place: place.to_owned() }) } else { Ok(line.to_owned()) }
}
