//! How a heartbeat is written into a datagram or a disk slot. Pure: bytes in, bytes out.
//!
//! The outer header is fixed for ever, so that a node of any version recognises a heartbeat of any other, although it
//! may not understand its body. Numbers are big-endian.
//!
//! ```text
//!  8  magic "regentHB"
//!  1  header version, always 1
//!  2  body version: 0 = none, 1 = JSON of `HeartbeatBody`
//!  8  incarnation
//!  8  sequence
//!  1  length of the cluster id ┐
//!  1  length of the node name  ├ then the three texts
//!  1  length of the boot id    ┘
//!  4  length of the body, then the body
//! 32  HMAC-SHA256 of everything before it
//! ```

use super::key::{Key, Keys};
use crate::types::{Boot, ClusterId, Heartbeat, HeartbeatBody, Incarnation, NodeName, Unfit};
use ring::hmac;
use serde::Serialize;
use std::sync::Arc;

/// No heartbeat is longer: it must fit into a disk slot, and into few IP fragments.
pub const MAX_LEN: usize = 4032;

const MAGIC: &[u8; 8] = b"regentHB";
const HEADER_VERSION: u8 = 1;
const BODY_NONE: u16 = 0;
const BODY_VERSION: u16 = 1;
const MAC_LEN: usize = 32;

/// What a message says about its origin before anything is proved: for error messages only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Claim {
    pub cluster: String,
    pub node: String,
}

/// Bytes that are not a heartbeat of this cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("not a regent heartbeat")]
    NotAHeartbeat,
    #[error("a heartbeat with outer header {found}, expected {HEADER_VERSION}: not written by any release of regent")]
    HeaderVersion { found: u8 },
    #[error("a heartbeat signed with another key{}: compare heartbeat_keys on both nodes", claims(claim))]
    BadMac { claim: Option<Claim> },
    #[error("an authentic heartbeat with a broken {field}")]
    Malformed { field: &'static str },
}

fn claims(claim: &Option<Claim>) -> String {
    claim.as_ref().map_or(String::new(), |c| format!(" (it claims to be of node {}, cluster {})", c.node, c.cluster))
}

/// Writes and signs a heartbeat of at most [`MAX_LEN`] bytes. What does not fit is left out, the least important
/// first: what databases lack but for its kinds, `heard`, the views, the body. Cluster and boot ids have at most 255 bytes.
pub fn encode(heartbeat: &Heartbeat, key: &Key) -> Vec<u8> {
    let body = heartbeat.body.as_ref().map_or_else(Vec::new, |body| fit(body, MAX_LEN - outer_len(heartbeat)));
    let mut out = Vec::with_capacity(outer_len(heartbeat) + body.len());
    out.extend_from_slice(MAGIC);
    out.push(HEADER_VERSION);
    out.extend_from_slice(&if body.is_empty() { BODY_NONE } else { BODY_VERSION }.to_be_bytes());
    out.extend_from_slice(&heartbeat.incarnation.0.to_be_bytes());
    out.extend_from_slice(&heartbeat.sequence.to_be_bytes());
    for text in texts(heartbeat) {
        out.push(u8::try_from(text.len()).expect("cluster and boot ids have at most 255 bytes, node names 63"));
    }
    for text in texts(heartbeat) {
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(&u32::try_from(body.len()).expect("at most MAX_LEN").to_be_bytes());
    out.extend_from_slice(&body);
    let mac = hmac::sign(&key.0, &out);
    out.extend_from_slice(mac.as_ref());
    assert!(out.len() <= MAX_LEN, "a heartbeat of {} bytes", out.len());
    out
}

fn texts(heartbeat: &Heartbeat) -> [&str; 3] {
    [&heartbeat.cluster.0, heartbeat.node.as_str(), &heartbeat.boot.0]
}

/// The length of a heartbeat with an empty body.
fn outer_len(heartbeat: &Heartbeat) -> usize {
    let texts: usize = texts(heartbeat).iter().map(|text| text.len()).sum();
    MAGIC.len() + 1 + 2 + 8 + 8 + 3 + texts + 4 + MAC_LEN
}

/// The body as JSON, without what does not fit; empty when nothing does.
fn fit(body: &HeartbeatBody, room: usize) -> Vec<u8> {
    let json = |body: &HeartbeatBody| serde_json::to_vec(body).expect("maps with text keys, numbers and words");
    let full = json(body);
    if full.len() <= room {
        return full;
    }
    let mut less = body.clone();
    for service in Arc::make_mut(&mut less.health).services.values_mut() {
        service.unfit = service.unfit.iter().map(Unfit::brief).collect();
        service.pending_restart.clear();
        service.lowered.clear();
        service.released.iter_mut().for_each(|word| word.why.clear());
    }
    let without_words = json(&less);
    if without_words.len() <= room {
        return without_words;
    }
    less.heard.clear();
    let without_heard = json(&less);
    if without_heard.len() <= room {
        return without_heard;
    }
    less.views = Default::default();
    Some(json(&less)).filter(|least| least.len() <= room).unwrap_or_default()
}

/// Reads a heartbeat and proves it with any of `keys`. A body that is of another version, or that this version cannot
/// read, is `None`: it is a heartbeat all the same.
pub fn decode(bytes: &[u8], keys: &Keys) -> Result<Heartbeat, WireError> {
    let (signed, mac) =
        bytes.len().checked_sub(MAC_LEN).map(|at| bytes.split_at(at)).ok_or(WireError::NotAHeartbeat)?;
    let rest = signed.strip_prefix(MAGIC).ok_or(WireError::NotAHeartbeat)?;
    match rest.first() {
        Some(&HEADER_VERSION) => {}
        Some(&found) => return Err(WireError::HeaderVersion { found }),
        None => return Err(WireError::NotAHeartbeat),
    }
    if !keys.accepted().any(|key| hmac::verify(&key.0, signed, mac).is_ok()) {
        return Err(WireError::BadMac { claim: claim(bytes) });
    }
    let outer = Outer::read(&rest[1..]).ok_or(WireError::Malformed { field: "outer header" })?;
    let node = outer.node.parse::<NodeName>().map_err(|_| WireError::Malformed { field: "node name" })?;
    let known = outer.body_version == BODY_VERSION;
    Ok(Heartbeat {
        cluster: ClusterId(outer.cluster.to_owned()),
        node,
        boot: Boot(outer.boot.into()),
        incarnation: Incarnation(outer.incarnation),
        sequence: outer.sequence,
        body: known.then(|| serde_json::from_slice(outer.body).ok()).flatten(),
    })
}

/// Whom a message claims to be from, unproved: for messages about what was refused, and for listing a disk.
pub fn claim(bytes: &[u8]) -> Option<Claim> {
    let outer = unproved(bytes)?;
    // Anybody can have written this: no control characters into logs and terminals.
    Some(Claim { cluster: outer.cluster.escape_debug().to_string(), node: outer.node.parse::<NodeName>().ok()?.into() })
}

/// Boot, incarnation and sequence as claimed, unproved: for listing a disk without a key.
pub fn claimed_life(bytes: &[u8]) -> Option<(Boot, Incarnation, u64)> {
    let outer = unproved(bytes)?;
    Some((Boot(outer.boot.into()), Incarnation(outer.incarnation), outer.sequence))
}

fn unproved(bytes: &[u8]) -> Option<Outer<'_>> {
    let signed = &bytes[..bytes.len().checked_sub(MAC_LEN)?];
    Outer::read(signed.strip_prefix(MAGIC)?.strip_prefix(&[HEADER_VERSION])?)
}

/// Everything between the header version and the MAC.
struct Outer<'a> {
    body_version: u16,
    incarnation: u64,
    sequence: u64,
    cluster: &'a str,
    node: &'a str,
    boot: &'a str,
    body: &'a [u8],
}

impl<'a> Outer<'a> {
    fn read(mut rest: &'a [u8]) -> Option<Self> {
        let body_version = u16::from_be_bytes(number(&mut rest)?);
        let incarnation = u64::from_be_bytes(number(&mut rest)?);
        let sequence = u64::from_be_bytes(number(&mut rest)?);
        let [cluster_len, node_len, boot_len] = number(&mut rest)?;
        let cluster = text(&mut rest, cluster_len)?;
        let node = text(&mut rest, node_len)?;
        let boot = text(&mut rest, boot_len)?;
        let body_len = u32::from_be_bytes(number(&mut rest)?);
        (usize::try_from(body_len).ok()? == rest.len()).then_some(Outer {
            body_version,
            incarnation,
            sequence,
            cluster,
            node,
            boot,
            body: rest,
        })
    }
}

fn number<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (found, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*found)
}

fn text<'a>(rest: &mut &'a [u8], len: u8) -> Option<&'a str> {
    let (found, after) = rest.split_at_checked(usize::from(len))?;
    *rest = after;
    std::str::from_utf8(found).ok()
}

#[cfg(test)]
#[path = "wire_test.rs"]
mod tests;
