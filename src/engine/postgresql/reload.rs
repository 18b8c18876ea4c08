//! Has a running server take over from its file whom it follows, and reads it back: PostgreSQL applies nothing of a reload
//! while one line of any of its files is wrong. Then what the server has is written into the file that it reads first, without
//! the others; and where that does not help either (an earlier daemon started it), it is restarted.
//!
//! Not here: what is wrong with the files (`files.rs`).

#![expect(clippy::disallowed_methods, reason = "how often the server is looked at: a plain wait that proves nothing")]

use super::core::Core;
use super::error::{EngineError, Result};
use super::files::{self, Fault};
use super::layout::AUTO_CONF;
use super::parameters::{self, Base};
use super::{settings, start, stop};
use crate::types::{FileFault, StopLadder, Upstream};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// How often it is looked whether it has.
const POLL: Duration = Duration::from_millis(3);
/// A server that can takes over within this; then it is asked why not.
const SOON: Duration = Duration::from_millis(300);
/// How long one whose files are in order may take on a busy host.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often what is wrong is left out: behind a line that cannot be read, wrong names do not show.
const ROUNDS: usize = 3;
/// A standby has nothing to lose, and is waited for.
pub const LADDER: StopLadder =
    StopLadder { fast: Duration::from_secs(5), immediate: Duration::from_secs(2), kill: Duration::from_secs(5) };

/// Has the running standby take over `conninfo`, which stands in its file, by a restart to follow `upstream` if nothing else
/// helps.
pub async fn take_over(core: &Arc<Core>, conninfo: &str, upstream: Option<&Upstream>) -> Result<()> {
    match read(core, conninfo).await? {
        Read::Shown => return Ok(()),
        // Slow is not dead, and whoever asked asks again.
        Read::Late => return Err(EngineError::NoAnswer { what: "the server, told whom to follow,", after: PATIENCE }),
        Read::NothingTaken => {}
    }
    // Before it is stopped: one that would not start again goes on as it is.
    let access = files::ask(core).await?.access;
    if let Some(fault) = files::first(&access) {
        return Err(EngineError::Refused { action: "restart the server", why: fault.to_string() });
    }
    parameters::prepare(core).await?;
    tracing::error!(service = %core.service, "the server did not take over whom to follow: it is restarted");
    stop::stop(core, LADDER).await?;
    start::start_standby(core, upstream).await
}

/// Has the running server read its files, without the wrong lines where there are any. Whether it shows `conninfo` then.
pub async fn read_again(core: &Arc<Core>, conninfo: &str) -> Result<bool> {
    Ok(matches!(read(core, conninfo).await?, Read::Shown))
}

/// What came of a reload.
enum Read {
    Shown,
    /// Nothing is wrong with its files, and it has not taken them over yet.
    Late,
    /// It takes over nothing, also without the wrong lines.
    NothingTaken,
}

async fn read(core: &Arc<Core>, conninfo: &str) -> Result<Read> {
    core.running("reload").await?.signal(libc::SIGHUP)?;
    if shows(core, conninfo, SOON).await {
        return Ok(Read::Shown);
    }
    let mut is_wrong = false;
    for _ in 0..ROUNDS {
        // One that does not even say is busy, or has ended: it is waited for.
        let faults = files::ask(core).await.map(|found| found.faults).unwrap_or_default();
        let fault = files::first(&faults);
        is_wrong = fault.is_some();
        let Some(fault) = fault else { break };
        tracing::error!(service = %core.service, %fault, "the server takes over nothing from its files: it goes on with what it has");
        core.found_fault(fault);
        leave_out(core, conninfo, faults).await?;
        core.running("reload").await?.signal(libc::SIGHUP)?;
        if shows(core, conninfo, SOON).await {
            return Ok(Read::Shown);
        }
    }
    match is_wrong {
        true => Ok(Read::NothingTaken),
        false if shows(core, conninfo, PATIENCE).await => Ok(Read::Shown),
        false => Ok(Read::Late),
    }
}

/// Whether the server follows that within the time.
async fn shows(core: &Arc<Core>, conninfo: &str, within: Duration) -> bool {
    let looks = async {
        loop {
            let place = match core.session().await {
                Ok(session) => session.place().await,
                Err(error) => Err(error),
            };
            if place.is_ok_and(|place| place.conninfo == conninfo) {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(within, looks).await.is_ok()
}

/// Writes the file that the server reads first of what it has, and takes wrong lines out of the one that it reads last.
async fn leave_out(core: &Arc<Core>, conninfo: &str, faults: Vec<Fault>) -> Result<()> {
    if !core.on_disk(|core| parameters::is_of_kept(&core.layout)).await {
        files::keep(core, false).await?;
    }
    let (postgresql, conninfo) = (core.current(), conninfo.to_owned());
    core.on_disk_in_order(move |core, in_order| {
        let auto = core.layout.within(AUTO_CONF).display().to_string();
        let wrong: Vec<u32> = faults.iter().filter(|fault| fault.file == auto).map(|fault| fault.line).collect();
        if !wrong.is_empty() {
            settings::drop_lines(in_order, &core.layout, &wrong, &conninfo)?;
        }
        parameters::write(&core.layout, &parameters::text(&core.layout, &postgresql, Base::Kept)?)
    })
    .await
    .map(drop)
}

impl Core {
    /// The server starts all the same, and it is said for as long as it runs so.
    pub fn starts_without(&self, file: &str, why: &str) {
        tracing::error!(service = %self.service, file, why, "the server is started without it");
        *self.without.lock().unwrap_or_else(PoisonError::into_inner) = Some(FileFault::new(file, 0, why, 0));
    }

    /// What was found is shown until the files were read again without it.
    pub fn found_fault(&self, fault: FileFault) {
        self.files.send_modify(|files| files.fault = Some(fault));
        self.look.notify_one();
    }
}
