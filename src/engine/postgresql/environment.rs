//! What the server, and with it archive_command and restore_command, and the operator's own programs find in their environment
//! beside what every program gets. It is never shown: secrets may stand there.
//!
//! Not here: what may be written (`config/on_host.rs`). PostgreSQL's own programs that bring no other program along get none.

use super::core::Core;
use super::error::{EngineError, Result};
use crate::config::{Postgresql, variables};
use crate::rights::{self, Rights};
use std::collections::BTreeMap;
use std::ffi::OsStr;

/// Names and values.
#[derive(Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// What the configuration says, with the file that it names, as that is now.
    pub fn read(postgresql: &Postgresql, user: &Rights) -> Result<Environment> {
        let mut all = postgresql.on_host.environment.clone();
        let Some(path) = &postgresql.on_host.environment_file else { return Ok(Environment(all)) };
        let text =
            rights::read_secret_for(user, path).map_err(|source| EngineError::Secret { path: path.clone(), source })?;
        let malformed = |detail| EngineError::Malformed { path: path.clone(), detail };
        let text = String::from_utf8(text).map_err(|_| malformed("it is no text".to_owned()))?;
        all.extend(variables(&text).map_err(malformed)?);
        Ok(Environment(all))
    }

    /// For the server: it starts without a file that cannot be read, and that is said. A database that does not archive is
    /// less harm than none.
    pub fn of_server(core: &Core) -> Environment {
        let postgresql = core.current();
        Environment::read(&postgresql, &core.layout.inside).unwrap_or_else(|error| {
            core.starts_without("environment_file", &error.to_string());
            Environment(postgresql.on_host.environment.clone())
        })
    }

    pub fn variables(&self) -> impl Iterator<Item = (&str, &OsStr)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_ref()))
    }
}
