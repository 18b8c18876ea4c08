//! The parts that this program plays in its own world, each in a process of its own: `__ROLE ARGUMENTS...`.

use crate::harness::{self, Scenario};
use crate::{bmc, boot, client};
use anyhow::Result;

/// Plays the part that the arguments name, and returns its exit status; `None` when they name none.
pub fn play(scenarios: &[Scenario], args: &[String]) -> Option<Result<i32>> {
    let (role, rest) = args.split_first()?;
    Some(match role.as_str() {
        "__scenario" => Ok(harness::run_in_this_process(scenarios, rest)),
        "__boot" => boot::main(rest).map(|()| 0),
        "__chassis" => bmc::hook(rest).map(|()| 0),
        "__writer" => client::writer_process::main(rest).map(|()| 0),
        _ => return None,
    })
}
