//! regent gets onto the hosts as the README says, line by line.
//!
//! What is built is the program that cargo built with this test (debug, or whatever profile it was given), installed by
//! `scripts/install` into a layer that all hosts share.
//! Not here: what must come of it (`scenarios/`).

use crate::bmc::PASSWORD;
use crate::cluster::Cluster;
use crate::host::{HOME, Host};
use crate::page::Page;
use crate::plan::{self, CLUSTER};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::Path;
use std::process::Command;

const README: Page = Page { text: include_str!("../../README.md") };
const INSTALL: &str = "Install it on three hosts";
/// The lines by which regent itself is built and installed.
const BUILT: [&str; 2] = ["cargo build --release", "sudo make install"];

/// The blocks below the heading, in their order.
#[derive(Clone, Copy)]
enum Step {
    EveryHost,
    Authority,
    Bring,
    Check,
    SharedDisk,
    Start,
}

fn step(step: Step) -> Result<Vec<String>> {
    README.block(INSTALL, step as usize)
}

/// What the distribution installs on every host.
pub fn of_the_distribution() -> Result<Vec<String>> {
    let lines = step(Step::EveryHost)?;
    let last = lines.iter().position(|line| line.starts_with("sudo apt-get install ")).context("README: no apt-get")?;
    Ok(lines[..=last].to_vec())
}

/// What is typed on every host once regent is built and installed, and before it.
fn beside_it() -> Result<(Vec<String>, Vec<String>)> {
    let lines = step(Step::EveryHost)?.split_off(of_the_distribution()?.len());
    let at = lines.iter().position(|line| *line == BUILT[0]).context("README: regent is not built")?;
    ensure!(lines.get(at + 1).is_some_and(|line| *line == BUILT[1]), "README: regent is not installed");
    Ok((lines[..at].to_vec(), lines[at + 2..].to_vec()))
}

/// Installs what cargo built into a tree of its own.
pub fn build(into: &Path) -> Result<()> {
    let built = Path::new(env!("CARGO_BIN_EXE_regent")).parent().context("a program lies in a folder")?;
    let mut script = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/install"));
    let done = script.env("DESTDIR", into).env("BUILT", built).status().context("start scripts/install")?;
    ensure!(done.success(), "scripts/install: {done}");
    println!("installed by scripts/install: {}", built.display());
    Ok(())
}

impl Cluster<'_> {
    /// Step 2: the authority, on a machine that is none of the hosts.
    pub fn make_authority(&self) -> Result<()> {
        let place = &self.world.directory;
        for line in step(Step::Authority)? {
            let line = line.strip_prefix("regent ").with_context(|| format!("README: {line:?}"))?;
            // The example has a witness where the page has a third database.
            let line = line.replace("db3", "w1");
            println!("elsewhere: regent {line}");
            let mut regent = Command::new(env!("CARGO_BIN_EXE_regent"));
            let done = regent.args(line.split_whitespace()).current_dir(place).output()?;
            ensure!(done.status.success(), "regent {line}: {}", String::from_utf8_lossy(&done.stderr));
        }
        ensure!(place.join("regent-ca").exists(), "no authority {CLUSTER} was made");
        Ok(())
    }

    /// Steps 1 to 3 on one host that has booted.
    pub fn install(&self, host: &Host) -> Result<()> {
        let (before, after) = beside_it()?;
        let example = |line: &str| line.replace("three-databases", "two-databases-and-witness");
        for line in before.iter().chain(&after) {
            host.type_in(&example(line))?;
        }
        self.bring(host)?;
        let text = plan::edited(|node| self.device(node).map(|device| device.address.clone()).unwrap_or_default())?;
        host.write("/etc/regent/regent.toml", &text, "0640")?;
        for line in step(Step::Check)? {
            let said = host.type_in(&line)?;
            ensure!(!said.is_empty(), "regent config check says nothing");
        }
        Ok(())
    }

    /// The files of a node, as somebody copies them to root's home; then as the page says.
    fn bring(&self, host: &Host) -> Result<()> {
        let from = self.world.directory.join("regent-ca").join(&host.name);
        for file in fs::read_dir(&from).with_context(|| format!("read {}", from.display()))? {
            let file = file?;
            let to = format!("{HOME}/regent-ca/{}/{}", host.name, file.file_name().to_string_lossy());
            host.write(&to, &fs::read_to_string(file.path())?, "0600")?;
        }
        host.write(&format!("{HOME}/bmc.pw"), &format!("{PASSWORD}\n"), "0600")?;
        host.write(&format!("{HOME}/replication.pw"), "of the replication\n", "0600")?;
        for line in step(Step::Bring)? {
            host.type_in(&line.replace("db1", &host.name))?;
        }
        Ok(())
    }

    /// Step 5, on every host.
    pub fn enable(&self) -> Result<()> {
        for host in self.hosts() {
            let lines = step(Step::Start)?;
            let [enable, _] = &lines[..] else { bail!("README: the last step is {lines:?}") };
            host.type_in(enable)?;
        }
        Ok(())
    }

    /// `regent status`, as the last step says.
    pub fn first_status(&self, host: &Host) -> Result<String> {
        let lines = step(Step::Start)?;
        let line = lines.last().context("README: the last step is empty")?;
        println!("{}: {line}", host.name);
        let output = host.output("sh", &["-c", line])?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
