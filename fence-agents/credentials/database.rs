//! One database of this host: its pg_hba.conf, and the server behind it, when it answers.
//!
//! The server is spoken to over its Unix socket, as root of the operating system, which its pg_ident.conf maps to the
//! superuser. A server that does not run needs nothing: it reads the file when it starts.

use crate::block;
use crate::contract::Request;
use crate::contract::standing::Standings;
use crate::hba::{self, HbaError};
use crate::record;
use crate::server::{self, ServerError};
use crate::target::Target;
use std::path::PathBuf;
use std::time::Duration;

/// Why a database's part failed.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error(transparent)]
    Hba(#[from] HbaError),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error("option {name} has {found} items, hba_file has {expected}: expected as many, or one for all")]
    Lists { name: &'static str, found: usize, expected: usize },
    #[error("option port is {given:?}: expected port numbers, with commas between them")]
    Port { given: String },
    #[error("option replication_role is {role:?}, the superuser: it would be locked out of its own database")]
    Superuser { role: String },
}

/// One database of this host.
#[derive(Debug)]
pub struct Database {
    hba_file: PathBuf,
    /// Without it, only the file is changed.
    socket_dir: Option<PathBuf>,
    port: u16,
    superuser: String,
    replication_role: Option<String>,
    limit: Duration,
}

/// The databases of this host: one for each item of `hba_file`.
pub fn from_request(request: &Request) -> Result<Vec<Database>, DatabaseError> {
    let files = request.list("hba_file");
    let column = |name: &'static str| -> Result<Vec<Option<String>>, DatabaseError> {
        let items: Vec<String> = request.list(name).into_iter().map(str::to_owned).collect();
        match items.len() {
            0 => Ok(vec![None; files.len()]),
            1 => Ok(vec![Some(items[0].clone()); files.len()]),
            found if found == files.len() => Ok(items.into_iter().map(Some).collect()),
            found => Err(DatabaseError::Lists { name, found, expected: files.len() }),
        }
    };
    let (sockets, ports, roles) = (column("socket_dir")?, column("port")?, column("replication_role")?);
    let superusers = column("superuser")?;
    let mut databases = Vec::new();
    for (i, file) in files.iter().enumerate() {
        let port = ports[i].clone().unwrap_or_default();
        let superuser = superusers[i].clone().unwrap_or_default();
        if let Some(role) = roles[i].clone().filter(|role| *role == superuser) {
            return Err(DatabaseError::Superuser { role });
        }
        databases.push(Database {
            hba_file: file.into(),
            socket_dir: sockets[i].clone().map(PathBuf::from),
            port: port.parse().map_err(|_| DatabaseError::Port { given: port })?,
            superuser,
            replication_role: roles[i].clone(),
            limit: request.seconds("database_timeout"),
        });
    }
    Ok(databases)
}

impl Database {
    /// How it is called in reports.
    pub fn name(&self) -> String {
        self.hba_file.display().to_string()
    }

    /// Opens the connection, unless no server is there.
    async fn server(&self) -> Result<Option<server::Server>, ServerError> {
        match &self.socket_dir {
            Some(dir) => server::connect(dir, self.port, &self.superuser, self.limit).await,
            None => Ok(None),
        }
    }

    /// Puts the reject lines in, ends the node's connections, and takes the login from its role on the primary.
    pub async fn revoke(&self, target: &Target) -> Result<String, DatabaseError> {
        let mut said = match hba::edit(&self.hba_file, |text| block::with(text, target)).await? {
            Some(_) => "reject lines are in".to_owned(),
            None => "there is no such file yet, so no lines".to_owned(),
        };
        let Some(server) = self.server().await? else { return Ok(said + "; no server runs") };
        let work = async {
            server.reload().await?;
            let role = self.replication_role.as_deref();
            // The role first, so that what is ended cannot come back; a failure there must not spare connections.
            let login = server.take_login(role, target).await;
            let ended = server.end_connections(&target.addresses, role).await?;
            Ok::<_, ServerError>(format!("; {ended} connections ended; {}", login?))
        };
        said += &within(self.limit, work).await?;
        Ok(said)
    }

    /// Takes the reject lines of exactly this fence out, and gives the roles that it locked their login back, but for
    /// those that another fence holds. The block goes last: for as long as it stands, `in-force` tells that there is
    /// something to undo, also when this run is killed.
    pub async fn restore(&self, target: &Target) -> Result<String, DatabaseError> {
        let text = hba::edit(&self.hba_file, |text| block::emptied(text, target.fence)).await?;
        let blocks = block::blocks(text.as_deref().unwrap_or_default());
        let told = blocks.iter().find(|block| block.fence == target.fence).and_then(|block| block.node);
        let target = target.of_node(told);
        let others = block::fences_of(text.as_deref().unwrap_or_default(), &target.node);
        let others: Vec<u64> = others.into_iter().filter(|other| *other != target.fence).collect();
        let server = match self.server().await? {
            None => "no server runs".to_owned(),
            Some(server) => {
                let work = async {
                    server.reload().await?;
                    server.give_login(&target, &others).await
                };
                within(self.limit, work).await?
            }
        };
        let file = match hba::edit(&self.hba_file, |text| block::without(text, target.fence)).await? {
            Some(_) => "the reject lines are out",
            None => "there is no such file",
        };
        Ok(format!("{file}; {server}"))
    }

    /// What fences have in force here: lines of the file, whether or not a server runs, and roles on the primary. A
    /// standby's roles are the primary's, which tells of them itself. Returns what there is to say besides.
    pub async fn in_force(&self, found: &mut Standings) -> Result<String, DatabaseError> {
        let text = hba::read(&self.hba_file)?;
        for block in block::blocks(text.as_deref().unwrap_or_default()) {
            let what = match block.rejecting() {
                0 => format!("a block without reject lines, half undone, in {}", self.name()),
                lines => format!("{lines} reject lines in {}", self.name()),
            };
            found.add(block.fence, block.node, &what);
        }
        let Some(server) = self.server().await? else { return Ok("no server runs".to_owned()) };
        let work = async {
            let roles = server.roles(None).await?;
            if server.is_in_recovery().await? {
                return Ok("the server is in recovery: the primary tells of the roles".to_owned());
            }
            for role in &roles {
                let state = if role.can_login { "a record in the comment" } else { "NOLOGIN" };
                for (fence, node) in record::fences(&role.comment) {
                    found.add(fence, node, &format!("{state} of role {} at port {}", role.name, self.port));
                }
            }
            Ok("the server answers".to_owned())
        };
        Ok(within(self.limit, work).await?)
    }

    /// Whether the file rejects the node under this fence; `None` when there is no file.
    pub fn is_revoked(&self, target: &Target) -> Result<Option<bool>, DatabaseError> {
        Ok(hba::read(&self.hba_file)?.map(|text| block::rejects(&text, target)))
    }

    /// Whether file and server could be used.
    pub async fn look(&self) -> Result<String, DatabaseError> {
        let file = match hba::read(&self.hba_file)? {
            Some(_) => "readable",
            None => "there is no such file yet",
        };
        let server = match self.server().await? {
            Some(_) => "the server answers",
            None => "no server runs",
        };
        Ok(format!("{file}; {server}"))
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, ServerError>>) -> Result<T, ServerError> {
    tokio::time::timeout(limit, work).await.map_err(|_| ServerError::TooSlow { limit })?
}
