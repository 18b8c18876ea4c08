//! The login of a replication role on the primary: taken by a fence, which is written down in the role's comment, and
//! given back when the last fence that took it is undone.
//!
//! Each change is one transaction, so that no role is without its login and without a record of who took it.

use crate::record;
use crate::server::{Server, ServerError};
use crate::target::Target;

/// Only one run at a time reads a comment and writes it back.
const LOCK: &str = "BEGIN; SELECT pg_advisory_xact_lock(hashtext('fence_regent_credentials'))";

/// Roles that a fence of ours is written down for.
const RECORDED: &str = "SELECT rolname, rolcanlogin, comment FROM (SELECT rolname, rolcanlogin, \
                        coalesce(shobj_description(oid, 'pg_authid'), '') AS comment FROM pg_roles) AS roles \
                        WHERE comment LIKE '%regent fence %' OR rolname = $1::text ORDER BY rolname";

/// A role, and what its comment says.
pub struct Role {
    pub name: String,
    pub can_login: bool,
    pub comment: String,
}

impl Role {
    /// Whether a fence of this number is written down here.
    fn is_taken_by(&self, fence: u64) -> bool {
        record::fences(&self.comment).iter().any(|(told, _)| *told == fence)
    }
}

impl Server {
    /// Whether the server is a standby, which can change no role.
    pub async fn is_in_recovery(&self) -> Result<bool, ServerError> {
        let failed = |source| ServerError::Sql { what: "SELECT pg_is_in_recovery()", source };
        Ok(self.client.query_one("SELECT pg_is_in_recovery()", &[]).await.map_err(failed)?.get(0))
    }

    /// The roles that a fence is written down for, and the one that is named.
    pub async fn roles(&self, named: Option<&str>) -> Result<Vec<Role>, ServerError> {
        let failed = |source| ServerError::Sql { what: "SELECT FROM pg_roles", source };
        let rows = self.client.query(RECORDED, &[&named]).await.map_err(failed)?;
        let role = |row: &tokio_postgres::Row| Role { name: row.get(0), can_login: row.get(1), comment: row.get(2) };
        Ok(rows.iter().map(role).collect())
    }

    async fn batch(&self, statements: &str, what: &'static str) -> Result<(), ServerError> {
        let failed = |source| ServerError::Sql { what, source };
        self.client.batch_execute(statements).await.map_err(failed)
    }

    /// Sets LOGIN or NOLOGIN and the comment; an empty one is none.
    async fn set(&self, role: &str, login: bool, comment: &str) -> Result<(), ServerError> {
        let failed = |source| ServerError::Sql { what: "SELECT format()", source };
        let word = if login { "LOGIN" } else { "NOLOGIN" };
        let text = Some(comment).filter(|text| !text.is_empty());
        let statement = "SELECT format('ALTER ROLE %I %s; COMMENT ON ROLE %I IS %L', $1::text, $2::text, $1, $3::text)";
        let row = self.client.query_one(statement, &[&role, &word, &text]).await.map_err(failed)?;
        self.batch(row.get(0), "ALTER ROLE").await
    }

    /// Does the work in one transaction, of which nothing is left when it fails: the connection is used on.
    async fn alone<T>(&self, work: impl Future<Output = Result<T, ServerError>>) -> Result<T, ServerError> {
        let work = async {
            self.batch(LOCK, "pg_advisory_xact_lock()").await?;
            work.await
        };
        match work.await {
            Ok(done) => self.batch("COMMIT", "COMMIT").await.map(|()| done),
            Err(error) => {
                // What failed is what there is to say; without a connection nothing is left either.
                let _ = self.batch("ROLLBACK", "ROLLBACK").await;
                Err(error)
            }
        }
    }

    /// Takes the login of the fenced node's role on the primary, and writes down that this fence did. Says what came of
    /// it. A role that somebody else had locked gets no line: it is not the fence's, and `on` leaves it as it is.
    pub async fn take_login(&self, role: Option<&str>, target: &Target) -> Result<String, ServerError> {
        let Some(name) = role else { return Ok("no replication role was given".to_owned()) };
        if self.is_in_recovery().await? {
            return Ok(format!("role {name} is unchanged: the server is in recovery"));
        }
        let work = async {
            let Some(role) = self.roles(role).await?.into_iter().find(|role| role.name == name) else {
                return Ok(format!("role {name} does not exist"));
            };
            let ours = !record::fences(&role.comment).is_empty();
            if role.can_login || ours && !role.is_taken_by(target.fence) {
                self.set(name, false, &record::with(&role.comment, target.fence, &target.node)).await?;
            }
            Ok(format!("role {name} is NOLOGIN {}", if role.can_login { "now" } else { "already" }))
        };
        self.alone(work).await
    }

    /// Takes this fence's line from every role that has one, and gives each its login back that no other fence holds:
    /// neither one that is written down with it, nor one of `others`, the fences of the same node that still stand in
    /// the access file here. Says what came of it.
    pub async fn give_login(&self, target: &Target, others: &[u64]) -> Result<String, ServerError> {
        if self.is_in_recovery().await? {
            return Ok("no role is changed: the server is in recovery".to_owned());
        }
        let work = async {
            let mut said = Vec::new();
            for role in self.roles(None).await?.into_iter().filter(|role| role.is_taken_by(target.fence)) {
                let mut comment = record::without(&role.comment, target.fence);
                for other in others {
                    // It came while this server was a standby and could write nothing down.
                    comment = record::with(&comment, *other, &target.node);
                }
                let remaining = record::fences(&comment).first().map(|(other, _)| *other);
                self.set(&role.name, remaining.is_none() || role.can_login, &comment).await?;
                said.push(match remaining {
                    Some(other) => format!("role {} stays as it is: fence {other} of this node remains", role.name),
                    None => format!("role {} is LOGIN now", role.name),
                });
            }
            Ok(if said.is_empty() { "no role is locked by this fence".to_owned() } else { said.join("; ") })
        };
        self.alone(work).await
    }
}
