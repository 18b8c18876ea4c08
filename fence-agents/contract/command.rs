//! Other programs, run with an input, a deadline and an environment that holds nothing but what they need; and
//! passwords, wherever they are kept.
//!
//! A program that is too slow is killed. When the agent itself is killed by its caller, which kills its whole process
//! group, its programs die with it: none is ever put into a group of its own.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Where programs are looked for.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program that could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("{program} cannot be started: is it installed?")]
    NotStarted { program: String, source: std::io::Error },
    #[error("{program} did not end within {limit:?}, and was killed")]
    TooSlow { program: String, limit: Duration },
    #[error("{program} ended with {status}: {said}")]
    Failed { program: String, status: std::process::ExitStatus, said: String },
    #[error("{program} could not be waited for")]
    Lost { program: String, source: std::io::Error },
}

/// What an ended program said, and how it ended.
pub struct Ended {
    pub status: std::process::ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Its output if it succeeded, else an error with its last line.
    pub fn success(self, program: &str) -> Result<String, CommandError> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        let said = last_line(&self.stderr).or(last_line(&self.stdout)).unwrap_or("it said nothing").to_owned();
        Err(CommandError::Failed { program: program.to_owned(), status: self.status, said })
    }
}

fn last_line(text: &str) -> Option<&str> {
    text.lines().rev().map(str::trim).find(|line| !line.is_empty())
}

/// A program with a clean environment. Secrets go into `input` or the environment, never into its arguments.
pub fn program<S: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(name);
    command.args(arguments).env_clear().env("PATH", PATH).env("LC_ALL", "C").kill_on_drop(true);
    command
}

/// Runs a program to its end, at most for `limit`.
pub async fn run(mut command: Command, input: &str, limit: Duration) -> Result<Ended, CommandError> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let work = async {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| CommandError::NotStarted { program: program.clone(), source })?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that ends without reading its input is judged by its exit status alone.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        let lost = |source| CommandError::Lost { program: program.clone(), source };
        let output = child.wait_with_output().await.map_err(lost)?;
        Ok(Ended {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    };
    let too_slow = |_| CommandError::TooSlow { program: program.clone(), limit };
    tokio::time::timeout(limit, work).await.map_err(too_slow)?
}
