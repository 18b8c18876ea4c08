//! Whether the WAL here, before its end, is the upstream's on the same timeline. A directory that was opened by somebody
//! else's hand has WAL of its own under the same numbers: once the upstream has overtaken it, positions tell nothing.
//!
//! The bytes of the page before the end are compared: each record names the one before it, and has a checksum of its own.
//!
//! Not here: what follows from it (`rejoin.rs`).

use super::control::{Control, segment_name};
use super::core::Core;
use super::error::{EngineError, Result};
use super::older;
use super::session::Session;
use crate::types::{Lsn, Position};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Whether the upstream has other WAL than this directory before `end`. Where one of them has none there, nothing is known
/// to be different.
pub async fn differs_before(core: &Arc<Core>, session: &Session, control: &Control, end: Position) -> Result<bool> {
    let Some(last) = end.lsn.0.checked_sub(1) else { return Ok(false) };
    let offset = (last - last % control.block_size) % control.segment_size;
    let length = last % control.block_size + 1;
    let name = segment_name(end.timeline, Lsn(last), control.segment_size).display().to_string();
    let doing = "compare the WAL with the upstream's";
    let question = format!("select pg_read_binary_file('pg_wal/{name}', {offset}, {length}, true)");
    let rows = match session.client().query_typed(&question, &[]).await.map_err(EngineError::sql(doing)) {
        // A role that somebody else made may not look.
        Err(error) if error.code().is_some() => {
            tracing::warn!(service = %core.service, %error, "whether the WAL is the upstream's is not known");
            return Ok(false);
        }
        answer => answer?,
    };
    let Some(there) = rows.first().and_then(|row| row.get::<_, Option<Vec<u8>>>(0)) else { return Ok(false) };
    let known = control.clone();
    core.on_disk(move |core| {
        // What recovery must reach may lie beyond the WAL that came with a copy.
        if !older::has_wal(&core.layout, &known, end)? {
            return Ok(false);
        }
        let path = core.layout.wal().join(&name);
        let mut here = vec![0; there.len()];
        let file = core.layout.inside.open(&path)?;
        file.read_exact_at(&mut here, offset).map_err(EngineError::file("read", &path))?;
        Ok(here != there)
    })
    .await
}
