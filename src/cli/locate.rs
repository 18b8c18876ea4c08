//! Which configuration file, and which admin socket. The file is read leniently here: a daemon that runs must stay
//! reachable although somebody has just broken its configuration file. `regent config check` is the strict reader.

use super::exit::UsageError;
use super::{Common, output};
use crate::api::admin::SOCKET_NAME;
use std::path::{Path, PathBuf};

/// Where a package puts the configuration.
pub const CONFIG_DEFAULT: &str = "/etc/regent/regent.toml";
const CONFIG_VARIABLE: &str = "REGENT_CONFIG";
const RUN_DIR_DEFAULT: &str = "/run/regent";

/// The configuration file, and whether somebody named it (it must exist then).
pub fn config(common: &Common) -> (PathBuf, bool) {
    let named = common.config.clone().or_else(|| std::env::var_os(CONFIG_VARIABLE).map(PathBuf::from));
    let is_named = named.is_some();
    (named.unwrap_or_else(|| PathBuf::from(CONFIG_DEFAULT)), is_named)
}

/// The admin socket of the daemon on this host.
pub fn socket(common: &Common) -> anyhow::Result<PathBuf> {
    if let Some(socket) = &common.socket {
        return Ok(socket.clone());
    }
    let (file, is_named) = config(common);
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if is_named => {
            return Err(UsageError(format!("the configuration file {} cannot be read: {error}", file.display())).into());
        }
        // An operator in the group may use the socket and need not be able to read the file.
        Err(_) => return Ok(Path::new(RUN_DIR_DEFAULT).join(SOCKET_NAME)),
    };
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let run_dir = match text.parse::<toml::Table>() {
        Ok(table) => run_dir(&table, &host),
        Err(error) => {
            output::complain(&format!(
                "{}: not valid TOML, so {RUN_DIR_DEFAULT} is assumed as run_dir: {}",
                file.display(),
                error.message()
            ));
            RUN_DIR_DEFAULT.into()
        }
    };
    Ok(run_dir.join(SOCKET_NAME))
}

/// `run_dir` of this node: its own table's, or the file's, or the default.
fn run_dir(table: &toml::Table, host: &str) -> PathBuf {
    let node = table.get("node").and_then(|n| n.as_str()).unwrap_or(host);
    let own = table.get("nodes").and_then(|nodes| nodes.get(node)).and_then(|own| own.get("run_dir"));
    let written = own.or_else(|| table.get("run_dir")).and_then(|dir| dir.as_str());
    written.unwrap_or(RUN_DIR_DEFAULT).replace("{node}", node).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_own_run_dir_comes_first() {
        let find = |text: &str| run_dir(&text.parse().expect("valid TOML"), "db1").display().to_string();
        assert_eq!(find("cluster = 'a'"), "/run/regent");
        assert_eq!(find("run_dir = '/run/a'"), "/run/a");
        assert_eq!(find("run_dir = '/run/a'\n[nodes.db1]\nrun_dir = '/run/b'"), "/run/b");
        assert_eq!(find("run_dir = '/run/{node}'"), "/run/db1");
        assert_eq!(find("run_dir = '/run/a'\nnode = 'db2'\n[nodes.db1]\nrun_dir = '/run/b'"), "/run/a");
    }
}
