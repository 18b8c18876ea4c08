//! What of a service's things outside its data directory could not work on this host: tried by `regent config check --host`,
//! which makes nothing.
//!
//! Not here: what a start does about it (`start.rs`: the server starts without, and that is said).

use super::environment::Environment;
use super::layout::Layout;
use super::program::OsUser;
use super::runs::Runs;
use crate::config::Config;
use crate::errors::with_causes;
use crate::types::ServiceName;
use std::net::{IpAddr, TcpListener};

/// A sentence each.
pub fn amiss(config: &Config, service: &ServiceName) -> Vec<String> {
    let postgresql = &config.services[service].postgresql;
    let found = OsUser::find(&postgresql.os_user, service, Runs::beside(None));
    let layout = found.and_then(|user| Layout::new(config, service, &user));
    let layout = match layout {
        Ok(layout) => layout,
        Err(error) => return vec![error.to_string()],
    };
    let user = &postgresql.os_user;
    let may_write = |key: &str, directory: &std::path::Path| {
        // One that is missing is made.
        let refused = directory.exists().then(|| layout.inside.must_write_in(directory).err()).flatten();
        refused.map(|error| format!("{key}: {} (as user {user})", with_causes(&error)))
    };
    let mut amiss: Vec<String> = may_write("log_dir", &postgresql.on_host.log_dir).into_iter().collect();
    amiss.extend(layout.more_sockets.iter().filter_map(|directory| may_write("socket_dirs", directory)));
    let named = postgresql.on_host.listen.iter().flatten();
    amiss.extend(named.filter_map(|address| is_not_here(*address).map(|why| format!("listen: {address}: {why}"))));
    amiss.extend(Environment::read(postgresql, &layout.inside).err().map(|error| format!("environment_file: {error}")));
    amiss.into_iter().map(|what| format!("service.{service}.postgresql.{what}")).collect()
}

/// Any port will do: that of the database may be taken by it.
fn is_not_here(address: IpAddr) -> Option<String> {
    TcpListener::bind((address, 0)).err().map(|error| format!("this host cannot listen on it: {error}"))
}
