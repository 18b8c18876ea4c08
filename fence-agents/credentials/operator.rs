//! The operator's own command: a secret store, a cloud, a pooler.

use crate::contract::Request;
use crate::contract::command::{self, CommandError};
use crate::target::Target;

/// Runs the shell command of the option `name`; `None` when there is none. It finds `NODE`, `FENCE_ID` and `ACTION`
/// in its environment, must end within `command_timeout`, and must end with exit status 0.
pub async fn run(request: &Request, name: &str, target: &Target) -> Option<Result<String, CommandError>> {
    let line = request.text(name)?;
    let mut shell = command::program("/bin/sh", ["-c", line]);
    shell.env("NODE", &target.node).env("FENCE_ID", target.fence.to_string()).env("ACTION", request.action.word());
    let ended = command::run(shell, "", request.seconds("command_timeout")).await;
    Some(ended.and_then(|ended| ended.success(name)).map(|said| match said.trim() {
        "" => "done".to_owned(),
        said => format!("done: {said}"),
    }))
}
