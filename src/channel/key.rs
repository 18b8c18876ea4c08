//! The cluster's heartbeat keys: one that signs, and during a rotation a second one that is accepted too.
//!
//! Here they are read from their files. How a heartbeat is signed is `wire.rs`.

use crate::rights::{self, SecretError};
use ring::hmac;
use std::fmt;
use std::path::{Path, PathBuf};

/// The length of a key in bytes.
pub const KEY_LEN: usize = 32;

/// One HMAC-SHA256 key.
#[derive(Clone)]
pub struct Key(pub(super) hmac::Key);

impl Key {
    pub fn new(bytes: &[u8; KEY_LEN]) -> Self {
        Key(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(secret)")
    }
}

/// The accepted keys; the first signs. To rotate: add the new key as the second on every node, then swap the two on
/// every node, then remove the old one.
#[derive(Clone, Debug)]
pub struct Keys {
    first: Key,
    second: Option<Key>,
}

/// Key files that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("heartbeat_keys names {found} files: expected one, or two during a rotation")]
    Count { found: usize },
    #[error("heartbeat key {}", path.display())]
    Secret { path: PathBuf, source: SecretError },
    #[error("heartbeat key {}: expected 64 hexadecimal digits (32 bytes) and nothing else", path.display())]
    Malformed { path: PathBuf },
}

impl Keys {
    pub fn new(first: Key, second: Option<Key>) -> Self {
        Keys { first, second }
    }

    /// Reads one or two key files: 64 hexadecimal digits each, white space around them ignored.
    pub fn load(paths: &[PathBuf]) -> Result<Self, KeyError> {
        match paths {
            [first] => Ok(Keys::new(read(first)?, None)),
            [first, second] => Ok(Keys::new(read(first)?, Some(read(second)?))),
            _ => Err(KeyError::Count { found: paths.len() }),
        }
    }

    /// The key that signs.
    pub fn signing(&self) -> &Key {
        &self.first
    }

    /// All keys that are accepted.
    pub fn accepted(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.first).chain(&self.second)
    }
}

fn read(path: &Path) -> Result<Key, KeyError> {
    let bytes = rights::read_secret(path).map_err(|source| KeyError::Secret { path: path.to_owned(), source })?;
    let key = unhex(bytes.trim_ascii()).ok_or_else(|| KeyError::Malformed { path: path.to_owned() })?;
    Ok(Key::new(&key))
}

fn unhex(text: &[u8]) -> Option<[u8; KEY_LEN]> {
    let mut key = [0; KEY_LEN];
    if text.len() != 2 * KEY_LEN {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(text.chunks(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn key_files_are_read_and_bad_ones_named() {
        let folder = tempfile::tempdir().unwrap();
        let good = write(folder.path(), "good", &format!("{}\n", "0aF9".repeat(16)), 0o600);
        let short = write(folder.path(), "short", &"00".repeat(31), 0o600);
        let text = write(folder.path(), "text", &"zz".repeat(32), 0o600);
        let open = write(folder.path(), "open", &"00".repeat(32), 0o644);
        assert_eq!(Keys::load(&[good.clone(), good.clone()]).unwrap().accepted().count(), 2);
        assert!(matches!(Keys::load(&[]), Err(KeyError::Count { found: 0 })));
        for bad in [short, text] {
            let error = Keys::load(std::slice::from_ref(&bad)).unwrap_err();
            assert!(matches!(error, KeyError::Malformed { .. }));
            assert!(error.to_string().contains(bad.to_str().unwrap()));
        }
        assert!(matches!(
            Keys::load(&[open]),
            Err(KeyError::Secret { source: SecretError::Exposed { mode: 0o644 }, .. })
        ));
        assert!(matches!(Keys::load(&[folder.path().join("none")]), Err(KeyError::Secret { .. })));
        assert!(!format!("{:?}", Keys::load(&[good]).unwrap()).contains("0aF9"), "a key was printed");
    }
}
