//! PostgreSQL as the lab handles it: where its programs are, statements, signals, and a plain server without regent
//! for the lab's tests of itself.

use crate::client::TABLES;
use crate::harness::skip;
use crate::host::{DISK, Host};
use crate::ready::Blow;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

pub const PORT: u16 = 5432;

/// The data directory, as every host sees it.
pub fn data_dir() -> String {
    format!("{DISK}/postgresql/data")
}

/// The folders of the services' databases on a host's disk, the first service first.
pub const FOLDERS: [&str; 2] = ["postgresql", "second"];

/// The data directory of the second service.
pub fn second_data_dir() -> String {
    format!("{DISK}/{}/data", FOLDERS[1])
}

/// The newest installed version's programs.
pub fn bin_dir() -> Result<PathBuf> {
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = installed
        .filter_map(|e| Some((e.file_name().to_str()?.parse().ok()?, e.path().join("bin"))))
        .filter(|(_, bin): &(u32, PathBuf)| bin.join("postgres").exists())
        .collect();
    found.sort();
    match found.pop() {
        Some((_, bin)) => Ok(bin),
        None => skip("PostgreSQL is not installed below /usr/lib/postgresql"),
    }
}

/// The places of the data directories on the host's disk, owned by the database's user, still empty.
pub fn prepare_disk(host: &Host) -> Result<()> {
    FOLDERS.iter().try_for_each(|folder| make_for_database(&host.disk().join(folder)))
}

/// A directory of the database's user.
pub fn make_for_database(path: &Path) -> Result<()> {
    fs::create_dir_all(path)?;
    chown_to_postgres(path)
}

fn chown_to_postgres(path: &Path) -> Result<()> {
    let user = nix::unistd::User::from_name("postgres")?.context("there is no user postgres")?;
    nix::unistd::chown(path, Some(user.uid), Some(user.gid)).with_context(|| format!("chown {}", path.display()))
}

/// Makes a database on the host's disk that trusts everybody, and starts it. For worlds without regent.
pub fn start_plain(host: &Host) -> Result<Child> {
    let (bin, data) = (bin_dir()?, data_dir());
    prepare_disk(host)?;
    let initdb = bin.join("initdb").display().to_string();
    host.run("runuser", &["-u", "postgres", "--", &initdb, "-D", &data, "-A", "trust", "--no-sync"])?;
    let hba = host.disk().join("postgresql/data/pg_hba.conf");
    fs::write(&hba, "local all all trust\nhost all all all trust\n")?;
    host.run("install", &["-d", "-o", "postgres", "/run/postgresql"])?;
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(bin.join("postgres")).args(["-D", &data]);
    command.args(["-c", "listen_addresses=*", "-c", "unix_socket_directories=/run/postgresql"]);
    let server = host.start(command, "postgresql")?;
    wait_for(host, "select 1", Duration::from_secs(30))?;
    sql(host, TABLES)?;
    Ok(server)
}

/// Statements through the server's own socket, as the superuser. Returns the rows without decoration.
pub fn sql(host: &Host, statements: &str) -> Result<String> {
    sql_in(host, FOLDERS[0], statements)
}

/// The same for one of the services' [`FOLDERS`].
pub fn sql_in(host: &Host, folder: &str, statements: &str) -> Result<String> {
    let directory = postmaster_line(host, folder, 4)?;
    let port = postmaster_line(host, folder, 3)?;
    let psql = bin_dir()?.join("psql").display().to_string();
    let args = ["-XAtq", "-v", "ON_ERROR_STOP=1", "-h", &directory, "-p", &port, "-U", "postgres", "-d", "postgres"];
    let args: Vec<&str> = args.iter().copied().chain(["-c", statements]).collect();
    Ok(host.run(&psql, &args)?.trim_end().to_owned())
}

/// Waits until a server, the primary or a standby, has the tables of the clients.
pub fn wait_for_tables(host: &Host, within: Duration) -> Result<()> {
    wait_for(host, "select from lab_writes, lab_probe limit 0", within)
}

/// The same in a session that goes on. Its output goes to the host's log `session`.
pub fn start_session(host: &Host, statement: &str) -> Result<Child> {
    let (directory, port) = (postmaster_line(host, FOLDERS[0], 4)?, postmaster_line(host, FOLDERS[0], 3)?);
    let mut psql = Command::new(bin_dir()?.join("psql"));
    psql.args(["-XAtq", "-h", &directory, "-p", &port, "-U", "postgres", "-d", "postgres", "-c", statement]);
    host.start(psql, "session")
}

/// Waits until the server carries out a statement.
pub fn wait_for(host: &Host, statement: &str, within: Duration) -> Result<()> {
    let end = Instant::now() + within;
    while let Err(error) = sql(host, statement) {
        let log = host.log("postgresql");
        ensure!(Instant::now() < end, "{statement:?} in host {}: {error:#}; see {}", host.name, log.display());
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// The ids in the writer's table.
pub fn written_ids(host: &Host) -> Result<Vec<i64>> {
    let text = sql(host, "select id from lab_writes order by id")?;
    text.lines().map(|line| line.parse().with_context(|| format!("{line:?} is no id"))).collect()
}

/// A line of `postmaster.pid`, counted from 0: process, data directory, start, port, socket directory.
fn postmaster_line(host: &Host, folder: &str, line: usize) -> Result<String> {
    let path = host.disk().join(folder).join("data/postmaster.pid");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    match text.lines().nth(line).map(str::trim) {
        Some(value) if !value.is_empty() => Ok(value.to_owned()),
        _ => bail!("{} has no line {line} yet", path.display()),
    }
}

/// The postmaster's process, as its host numbers it.
pub fn postmaster(host: &Host) -> Result<String> {
    postmaster_of(host, FOLDERS[0])
}

/// The same for one of the services' [`FOLDERS`].
pub fn postmaster_of(host: &Host, folder: &str) -> Result<String> {
    postmaster_line(host, folder, 0)
}

/// Which postmaster runs of one of the [`FOLDERS`]: its process, and since when. Another pair is another postmaster.
pub fn postmaster_since(host: &Host, folder: &str) -> Result<String> {
    let process = postmaster_line(host, folder, 0)?;
    Ok(format!("{process} since {}", sql_in(host, folder, "select pg_postmaster_start_time()")?))
}

/// Sends a signal (`KILL`, `STOP`, `CONT`) to the postmaster alone.
pub fn signal_postmaster(host: &Host, signal: &str) -> Result<()> {
    let process = postmaster(host)?;
    host.struck(if signal == "KILL" { Blow::DatabaseKilled } else { Blow::Hurt });
    host.run("kill", &["-s", signal, &process]).map(drop)
}
