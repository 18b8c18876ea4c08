//! The replication password: what its file says, and how the server keeps it, as a SCRAM verifier that is made and compared
//! here, so that no server is ever sent the password itself and `password_encryption` has no say in it.
//!
//! A file of two lines is for the time of a change: the roles get the first, and a node logs in with whichever of the two is
//! let in. Both on every host first, in any order of hosts, and no connection is refused on the way.
//!
//! Not here: who gives the roles their password (`roles.rs`).
//!
//! Sources: RFC 5802 and RFC 7677 (SCRAM-SHA-256), RFC 4013 (SASLprep); PostgreSQL manual, pg_authid.rolpassword.

use super::error::{EngineError, Result};
use crate::config::Postgresql;
use crate::rights::{self, Rights};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postgres_protocol::password::scram_sha_256;
use ring::{digest, hmac, pbkdf2};
use std::num::NonZeroU32;

/// The passwords of the file, the one that the roles are to have first; none, where the configuration names no file. It is
/// read with the rights of `user`, the database's, to whom they are handed.
pub fn passwords(postgresql: &Postgresql, user: &Rights) -> Result<Vec<String>> {
    let Some(path) = &postgresql.replication_password_file else { return Ok(Vec::new()) };
    let text =
        rights::read_secret_for(user, path).map_err(|source| EngineError::Secret { path: path.clone(), source })?;
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines().map(|line| line.trim().to_owned()).take(2);
    let first = lines.next().filter(|first| !first.is_empty()).ok_or_else(|| {
        let detail = "the first line must be the replication password, and is empty".to_owned();
        EngineError::Malformed { path: path.clone(), detail }
    })?;
    Ok([first].into_iter().chain(lines.filter(|second| !second.is_empty())).collect())
}

/// The password that the roles are to have, as the server keeps it.
pub fn verifier(postgresql: &Postgresql, user: &Rights) -> Result<Option<String>> {
    Ok(passwords(postgresql, user)?.first().map(|password| scram_sha_256(password.as_bytes())))
}

/// Whether the server's verifier is one of this password. One of another kind, as of `password_encryption = md5`, is not.
pub fn is_kept_as(password: &str, verifier: &str) -> bool {
    stored_key(password, verifier).unwrap_or(false)
}

/// `SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY`
fn stored_key(password: &str, verifier: &str) -> Option<bool> {
    let (how, keys) = verifier.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
    let (iterations, salt) = how.split_once(':')?;
    let iterations: NonZeroU32 = iterations.parse().ok()?;
    let (stored, salt) = (STANDARD.decode(keys.split(':').next()?).ok()?, STANDARD.decode(salt).ok()?);
    // As client and server do: one that cannot be prepared is taken as it is.
    let prepared = stringprep::saslprep(password).unwrap_or_else(|_| password.into());
    let mut salted = [0; digest::SHA256_OUTPUT_LEN];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, prepared.as_bytes(), &mut salted);
    let client = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &salted), b"Client Key");
    Some(digest::digest(&digest::SHA256, client.as_ref()).as_ref() == stored)
}

/// The line of a password file of libpq's.
pub fn passfile_line(role: &str, password: &str) -> String {
    let escaped = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
    format!("*:*:*:{}:{}\n", escaped(role), escaped(password))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_is_known_by_its_password_whatever_that_is_made_of() {
        for password in ["secret", "it's \"a\" \\ : = # one", " spaces ", "pässwörd ½ \u{a0}x", "\u{2168}", "\u{7}bell"]
        {
            let verifier = scram_sha_256(password.as_bytes());
            assert!(is_kept_as(password, &verifier), "{password:?} {verifier}");
            assert!(!is_kept_as(&format!("{password}x"), &verifier), "{password:?}");
        }
        for other in ["", "md5a1b2c3", "SCRAM-SHA-256$", "SCRAM-SHA-256$0:YQ==$YQ==:YQ==", "SCRAM-SHA-256$4096:?$?:?"] {
            assert!(!is_kept_as("secret", other), "{other}");
        }
    }

    /// The example of RFC 7677, with the keys that PostgreSQL keeps of it.
    #[test]
    fn a_verifier_of_the_standards_example_is_known() {
        let verifier = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
             wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
        assert!(is_kept_as("pencil", verifier));
        assert!(!is_kept_as("Pencil", verifier));
    }

    #[test]
    fn a_password_file_keeps_what_a_password_is_made_of() {
        assert_eq!(passfile_line("regent_db1", r"a:b\c"), "*:*:*:regent_db1:a\\:b\\\\c\n");
    }
}
