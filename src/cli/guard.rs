//! `regent guard`: kills a database when its lease ends. Started by the engine, and by the unit after the daemon.

use super::{Common, config, output};
use crate::action::guard::{self, GuardOptions};
use crate::engine::postgresql;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Arguments {
    /// The lease file
    #[arg(long)]
    lease: Option<PathBuf>,
    /// What is sent when the daemon ends without a word
    #[arg(long)]
    goodbye: Option<PathBuf>,
    /// The database's data directory
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// The database's cgroup
    #[arg(long)]
    cgroup: Option<PathBuf>,
    /// See that a guard stands for every database of this host that holds a lease, and return
    #[arg(long, conflicts_with_all = ["lease", "goodbye", "data_dir", "cgroup"])]
    once: bool,
}

pub fn run(common: &Common, arguments: &Arguments) -> ExitCode {
    if arguments.once {
        return post_all(common);
    }
    let (Some(lease), Some(data_dir)) = (arguments.lease.clone(), arguments.data_dir.clone()) else {
        output::complain("guard takes --lease FILE --data-dir DIR [--cgroup DIR] [--goodbye FILE], or --once");
        return ExitCode::from(2);
    };
    let (goodbye, cgroup) = (arguments.goodbye.clone(), arguments.cgroup.clone());
    guard::run(&GuardOptions { lease, goodbye, cgroup, data_dir })
}

/// The engine posted a guard with each start; this is for one that was killed since.
fn post_all(common: &Common) -> ExitCode {
    let posted = config::load(common).and_then(|config| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        for service in config.services.keys() {
            let options = postgresql::guard_options(&config, service)?;
            let held = guard::read_lease(&options.lease).is_ok_and(|lease| !lease.released);
            if held {
                runtime.block_on(guard::spawn(&PathBuf::from("/proc/self/exe"), &options))?;
            }
        }
        Ok(())
    });
    match posted {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
