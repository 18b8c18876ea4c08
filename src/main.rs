//! The command line, nothing else.

fn main() -> std::process::ExitCode {
    abort_on_panic();
    #[cfg(debug_assertions)]
    choose_bug();
    regent::cli::main()
}

/// A broken invariant ends the process, whichever thread finds it: the guard and the watchdog are part of the design.
fn abort_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        // The standard hook would wait for whoever reads standard error, and the process would live on, half dead.
        let trace = std::backtrace::Backtrace::capture();
        regent::last_words::say(&format!("regent: {panic}\n{trace}"));
        std::process::abort();
    }));
}

/// A build for tests, which has bugs on purpose, is told which one by its environment.
#[cfg(debug_assertions)]
fn choose_bug() {
    use regent::known_bugs::{ALL, choose};
    let Ok(wanted) = std::env::var("REGENT_KNOWN_BUG") else { return };
    let bug = ALL.iter().find(|(name, _)| *name == wanted).map(|(_, bug)| *bug);
    choose(Some(bug.unwrap_or_else(|| panic!("REGENT_KNOWN_BUG={wanted}: there is no such bug"))));
}
