//! `regent config check`, and the strict reading of the configuration file for every verb that needs all of it.

use super::exit::UsageError;
use super::verb::block_on;
use super::{Common, Exit, locate, output};
use crate::action::fence::Runner;
use crate::config::{self, Config, Role, Written};
use crate::daemon::Origin;
use crate::engine::postgresql::{self, version};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Check a file and print the bounds that it implies
    Check {
        /// The file [default: the one that --config names]
        file: Option<PathBuf>,
        /// Check it as this node's file
        #[arg(long)]
        node: Option<String>,
        /// Try besides on this host what the file names: the databases' parameters and access lines with PostgreSQL
        /// itself, the fence agents' options, the operator's own programs (as root)
        #[arg(long)]
        host: bool,
    },
}

pub fn run(common: &Common, command: &Command) -> anyhow::Result<Exit> {
    let Command::Check { file, node, host } = command;
    let path = file.clone().unwrap_or_else(|| locate::config(common).0);
    match read(&path, node.as_deref())? {
        Ok(config) => {
            let lacking = if *host { lacking(common, &config) } else { Vec::new() };
            if !lacking.is_empty() {
                let lacking = lacking.iter().map(|what| format!("{}: on this host: {what}", path.display()));
                let lacking: Vec<String> = lacking.collect();
                if common.json {
                    output::say_json_document(&lacking);
                } else {
                    lacking.iter().for_each(|what| output::complain(what));
                }
                return Ok(Exit::Usage);
            }
            let mut report = config::report(&config);
            // Of another node's file nothing is known of its programs.
            if node.is_none() {
                report.warnings.extend(programs(&config, &path)?);
            }
            if common.json {
                output::say_json_document(&report)
            } else {
                output::say(&report.to_string())
            }
            Ok(Exit::Done)
        }
        Err(problems) => {
            if common.json {
                output::say_json_document(&problems);
            } else {
                problems.iter().for_each(|p| output::complain(&p.to_string()));
            }
            Ok(Exit::Usage)
        }
    }
}

/// What of the file cannot work here. The databases' users are asked for, hence as root.
fn lacking(common: &Common, config: &Config) -> Vec<String> {
    // One document is all that a program reads.
    let tell = |what: &str| {
        if !common.json {
            output::progress(what)
        }
    };
    tell("asking the fence agents what options they know");
    let agents = unfit_agents(config);
    if config.me().role != Role::Database {
        return agents;
    }
    tell("trying the databases' settings and access lines with PostgreSQL, on a server that is thrown away");
    let programs = config.services.keys().flat_map(|service| postgresql::unusable(config, service));
    let outside = config.services.keys().flat_map(|service| postgresql::amiss(config, service));
    let on_host = programs.chain(outside).chain(refused(config)).chain(rivals(config));
    agents.into_iter().chain(on_host).collect()
}

/// The distribution's units that would start a server in the way of a service.
fn rivals(config: &Config) -> Vec<String> {
    block_on(async { Ok(postgresql::rivals(config).await) }).unwrap_or_else(|error| vec![error.to_string()])
}

/// What the fence agents say of themselves that does not fit the file.
fn unfit_agents(config: &Config) -> Vec<String> {
    let runner = Runner::new(Arc::new(config.clone()));
    let asked = block_on(async { Ok(runner.check().await) });
    asked.map_or_else(|error| vec![error.to_string()], |found| found.iter().map(ToString::to_string).collect())
}

/// What PostgreSQL refuses of the services' parameters, access lines and the files that they name.
fn refused(config: &Config) -> Vec<String> {
    let tries = async {
        let mut refused = Vec::new();
        for service in config.services.keys() {
            if let Err(error) = postgresql::on_this_host(config, service).await {
                refused.push(format!("service.{service}.postgresql: {error}"));
            }
        }
        Ok(refused)
    };
    block_on(tries).unwrap_or_else(|error| vec![error.to_string()])
}

/// What is to be said of the databases' programs on this host, where it has any. Errors: they cannot work.
fn programs(config: &Config, path: &Path) -> anyhow::Result<Vec<String>> {
    let mut warnings = Vec::new();
    for (name, service) in &config.services {
        let key = format!("service.{name}.postgresql.bin_dir");
        let judged = version::judge_programs(&service.postgresql.bin_dir);
        let unknown = judged.map_err(|why| UsageError(format!("{}: {key}: {why}", path.display())))?;
        warnings.extend(unknown.map(|unknown| format!("{key}: {unknown}")));
    }
    Ok(warnings)
}

/// A file as its reader found it: what it says, or every error.
type Checked = Result<Config, Vec<config::Problem>>;

fn read(path: &Path, node: Option<&str>) -> anyhow::Result<Checked> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| UsageError(format!("the configuration file {} cannot be read: {error}", path.display())))?;
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    Ok(Config::parse(&text, &path.display().to_string(), node, &host))
}

/// The valid configuration that the command line names, or every error in it.
pub fn load(common: &Common) -> anyhow::Result<Config> {
    load_from(&locate::config(common).0, None)
}

/// The same, with the file that it comes from.
pub fn load_with_origin(common: &Common) -> anyhow::Result<(Config, Origin)> {
    let path = locate::config(common).0;
    let config = load_from(&path, None)?;
    // It is compared with this when it is read again; where it has changed since, it differs then.
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    Ok((config, Origin { path, written: Written::of(&text) }))
}

/// The valid configuration of this file, as this node's.
pub fn load_from(path: &Path, node: Option<&str>) -> anyhow::Result<Config> {
    read(path, node)?.map_err(|problems| {
        let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
        UsageError(format!("the configuration is not valid:\n{}", lines.join("\n"))).into()
    })
}
