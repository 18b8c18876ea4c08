//! A large database that is made once and copied into each run: what regent's `initdb` brings forth on the first host is
//! already large. Half of it lies in a tablespace.
//!
//! Not here: what is done with it (`scenarios/large.rs`).

use crate::postgres;
use crate::system;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Under which name a host has it on its disk.
pub const NAME: &str = "seed";
/// Where its tablespace belongs on each host.
pub const SPACE: &str = "/srv/space";
/// The programs of PostgreSQL as hosts with a seed have them: `initdb` copies it.
pub const PROGRAMS: &str = "/srv/seed/bin";
/// Its tables, of as many rows of 1 kB, the second in the tablespace.
pub const TABLES: [&str; 2] = ["large", "large_in_space"];
pub const ROWS: u32 = 1_800_000;
/// It, three copies of it, a fourth that is being made, and as much again for a copy that takes the place of a rewind.
pub const ROOM_GB: u64 = 26;
/// What has to be left at any time: others use this machine too.
pub const LEFT_GB: u64 = 5;

/// In place of `initdb`: `-D DIRECTORY … --waldir=DIRECTORY`, both there and empty.
const INITDB: &str = r#"#!/bin/sh
set -e
data="$2"
for word in "$@"; do case "$word" in --waldir=*) wal="${word#*=}" ;; esac; done
cp -a --reflink=auto /srv/seed/data/. "$data"
cp -a "$data"/pg_wal/. "$wal"
rm -r "$data/pg_wal"
ln -s "$wal" "$data/pg_wal"
cp -a --reflink=auto /srv/seed/space/. /srv/space
"#;

/// Whether so much is free for worlds; what is, where it is not.
pub fn has_room(world: &Path, needed: u64) -> Result<std::result::Result<(), String>> {
    let found = nix::sys::statvfs::statvfs(world).with_context(|| format!("statvfs {}", world.display()))?;
    let free = found.blocks_available() * found.fragment_size() / 1_000_000_000;
    let missing = || format!("{free} GB are free at {}, and {needed} are needed", world.display());
    Ok(if free < needed { Err(missing()) } else { Ok(()) })
}

/// The seed, from an earlier run or made now.
pub fn ready() -> Result<PathBuf> {
    let bin = postgres::bin_dir()?;
    let version = bin.parent().and_then(Path::file_name).context("programs lie below their version")?;
    let name = format!("lab-large-{}-{ROWS}", version.to_string_lossy());
    let (seed, new) = (Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name), name + ".new");
    if seed.exists() {
        return Ok(seed);
    }
    let new = Path::new(env!("CARGO_TARGET_TMPDIR")).join(new);
    if new.exists() {
        fs::remove_dir_all(&new)?;
    }
    fs::create_dir_all(&new)?;
    make(&new, &bin).inspect_err(|_| drop(fs::remove_dir_all(&new)))?;
    fs::rename(&new, &seed)?;
    Ok(seed)
}

fn make(new: &Path, bin: &Path) -> Result<()> {
    fs::create_dir(new.join("bin"))?;
    for program in fs::read_dir(bin)?.flatten().filter(|program| program.file_name() != "initdb") {
        symlink(program.path(), new.join("bin").join(program.file_name()))?;
    }
    fs::write(new.join("bin/initdb"), INITDB)?;
    fs::set_permissions(new.join("bin/initdb"), fs::Permissions::from_mode(0o755))?;
    // The database's user may not reach it where the repository is; `/run` is this scenario's own.
    let here = Path::new("/run/seed");
    fs::create_dir_all(here)?;
    system::bind(new, here)?;
    let user = nix::unistd::User::from_name("postgres")?.context("there is no user postgres")?;
    for folder in ["data", "space"] {
        fs::create_dir(here.join(folder))?;
        fs::set_permissions(here.join(folder), fs::Permissions::from_mode(0o700))?;
        nix::unistd::chown(&here.join(folder), Some(user.uid), Some(user.gid))?;
    }
    let initdb = ["-D", "/run/seed/data", "--data-checksums", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"];
    as_postgres(&bin.join("initdb"), &initdb, None)?;
    fs::create_dir_all("/run/postgresql")?;
    // Without WAL of the rows, and without a client that could reach it.
    let single = ["--single", "-F", "-D", "/run/seed/data", "-c", "wal_level=minimal", "-c", "max_wal_senders=0"];
    as_postgres(
        &bin.join("postgres"),
        &[&single[..], &["-c", "max_wal_size=4GB", "postgres"]].concat(),
        Some(&rows()),
    )?;
    // To set hint bits was written to the WAL, and no copy needs it.
    as_postgres(&bin.join("pg_resetwal"), &["-D", "/run/seed/data"], None)?;
    let links = here.join("data/pg_tblspc");
    let link = fs::read_dir(&links)?.flatten().next().context("it has no tablespace")?.path();
    fs::remove_file(&link)?;
    symlink(SPACE, &link)?;
    system::unmount(here)
}

/// One statement a line. What is made and filled in one transaction writes no WAL.
fn rows() -> String {
    let mut text = "create tablespace space location '/run/seed/space'\n".to_owned();
    for (table, place) in TABLES.iter().zip(["", "tablespace space"]) {
        text += &format!(
            "create table {table} {place} as select i as id, repeat(md5(i::text), 31) as filler \
             from generate_series(1, {ROWS}) i\ncreate index on {table} (id)\nvacuum (freeze) {table}\n"
        );
    }
    text
}

fn as_postgres(program: &Path, words: &[&str], input: Option<&str>) -> Result<()> {
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(program).args(words).current_dir("/run/seed/data");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {}", program.display()))?;
    let mut end = child.stdin.take().context("it is piped")?;
    std::io::Write::write_all(&mut end, input.unwrap_or_default().as_bytes())?;
    drop(end);
    let output = child.wait_with_output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let is_whole = output.status.success() && !said.contains("ERROR:") && !said.contains("FATAL:");
    ensure!(is_whole, "{}: {}: {said}", program.display(), output.status);
    Ok(())
}
