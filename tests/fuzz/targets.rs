//! What must hold for any bytes that reach regent from outside: one function a door. The fuzz targets (`fuzz/`) call
//! these, and so do the bounded tests beside them.
//!
//! Not here: where the bytes come from. Every function panics when its door does not hold.

use regent::action::agent_metadata::Metadata;
use regent::action::agent_output::last_lines;
use regent::action::in_force;
use regent::action::secrets::Secrets;
use regent::api::admin;
use regent::channel::disk_format::{BLOCK, DiskId, Header, PAYLOAD_MAX, SLOTS_MAX, Slot};
use regent::channel::key::Key;
use regent::channel::wire::{self, WireError};
use regent::channel::{Gate, Keys};
use regent::config::timing::{bounds, inequalities};
use regent::config::{Config, report, verdict_possible};
use regent::consensus::{self, proto};
use regent::daemon::Call;
use regent::node::PeerResponse;
use regent::types::{Boot, ClusterId, Heartbeat, HeartbeatBody, Incarnation};
use ring::hmac;
use std::collections::BTreeMap;

const KEY: [u8; 32] = [7; 32];

fn keys() -> Keys {
    Keys::new(Key::new(&KEY), None)
}

/// The first two bytes as a number, and the rest.
fn number(data: &[u8]) -> (usize, &[u8]) {
    let at = data.len().min(2);
    (data[..at].iter().fold(0, |sum, byte| sum * 256 + usize::from(*byte)), &data[at..])
}

/// A heartbeat with this body, signed, whatever the body is.
fn signed(body: &[u8]) -> Vec<u8> {
    let mut bytes = b"regentHB\x01\x00\x01".to_vec();
    bytes.extend_from_slice(&[0; 16]);
    bytes.extend_from_slice(&[6, 3, 4]);
    bytes.extend_from_slice(b"ordersdb2boot");
    bytes.extend_from_slice(&u32::try_from(body.len()).expect("bounded inputs").to_be_bytes());
    bytes.extend_from_slice(body);
    with_mac(bytes)
}

fn with_mac(mut bytes: Vec<u8>) -> Vec<u8> {
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &KEY), &bytes);
    bytes.extend_from_slice(mac.as_ref());
    bytes
}

/// A datagram, or what a slot holds: nothing without the key passes, nothing with it panics, what passes survives being
/// sent on, and one flipped bit never passes.
pub fn heartbeat(data: &[u8]) {
    let _ = (wire::claim(data), wire::claimed_life(data));
    assert!(wire::decode(data, &keys()).is_err(), "bytes without a signature passed");
    let cluster = ClusterId("orders".into());
    let me = "db1".parse().expect("valid");
    let gate = Gate { cluster, me, peers: ["db2".parse().expect("valid")].into(), keys: keys() };
    assert!(gate.admit(data).is_err());

    match wire::decode(&with_mac(data.to_vec()), &keys()) {
        Ok(heard) => survives(heard),
        Err(WireError::BadMac { .. }) => panic!("a signed message was refused for its signature"),
        Err(WireError::NotAHeartbeat | WireError::HeaderVersion { .. } | WireError::Malformed { .. }) => {}
    }
    // Whatever its body is, it is a heartbeat.
    let whole = signed(data);
    let heard = wire::decode(&whole, &keys()).expect("a body that nobody understands is no reason to miss a heartbeat");
    assert!(gate.admit(&whole).is_ok());
    survives(heard);
    let (place, _) = number(data);
    let mut flipped = whole;
    let bit = place % (flipped.len() * 8);
    flipped[bit / 8] ^= 1 << (bit % 8);
    assert!(wire::decode(&flipped, &keys()).is_err(), "bit {bit} was flipped unseen");
}

fn survives(heard: Heartbeat) {
    let sent = wire::encode(&heard, &Key::new(&KEY));
    assert!(sent.len() <= wire::MAX_LEN);
    let again = wire::decode(&sent, &keys()).expect("what regent writes it reads");
    let outer = |h: &Heartbeat| Heartbeat { body: None, ..h.clone() };
    assert_eq!(outer(&again), outer(&heard));
    // What does not fit is left out, and nothing is ever added.
    match (&heard.body, &again.body) {
        (None, Some(_)) => panic!("a body out of nothing"),
        (Some(before), Some(after)) => {
            let least = HeartbeatBody { heard: BTreeMap::new(), views: Default::default(), ..before.clone() };
            let less = HeartbeatBody { heard: BTreeMap::new(), ..before.clone() };
            assert!([before, &less, &least].contains(&after), "the body changed");
        }
        (_, None) => {}
    }
}

/// A block of the shared disk, as a header and as a slot: foreign and damaged blocks are told, nothing half-written is
/// taken for a heartbeat.
pub fn disk_slot(data: &[u8]) {
    let (place, rest) = number(data);
    let mut block = [0; BLOCK];
    let len = rest.len().min(BLOCK);
    block[..len].copy_from_slice(&rest[..len]);
    let index = place % SLOTS_MAX;
    look_at(&block, index);
    // The same behind the checksum.
    let crc = crc32fast::hash(&block[..BLOCK - 4]);
    block[BLOCK - 4..].copy_from_slice(&crc.to_be_bytes());
    look_at(&block, index);

    let header =
        Header { cluster: ClusterId("orders".into()), disk: DiskId([9; 16]), generation: 2, slots: Vec::new() };
    let payload = &rest[..rest.len().min(PAYLOAD_MAX)];
    let written = header.encode_slot(index, payload);
    assert_eq!(header.decode_slot(index, &written), Slot::Full(payload));
    assert_eq!(header.decode_slot(index + 1, &written), Slot::Torn, "a slot in another one's place");
    let mut flipped = written;
    let bit = place % (BLOCK * 8);
    flipped[bit / 8] ^= 1 << (bit % 8);
    assert_eq!(header.decode_slot(index, &flipped), Slot::Torn, "bit {bit} was flipped unseen");
    let cut = place % BLOCK;
    let mut torn = block;
    torn[..cut].copy_from_slice(&written[..cut]);
    // The one before may be a whole slot too, and both may begin alike.
    let whole = torn == written || torn == block;
    let slot = header.decode_slot(index, &torn);
    assert!(whole || matches!(slot, Slot::Torn | Slot::Empty), "half a block was taken for a whole one");
}

fn look_at(block: &[u8; BLOCK], index: usize) {
    if let Ok(header) = Header::decode(block) {
        assert_eq!(Header::decode(&header.encode()), Ok(header.clone()));
        if let Slot::Full(payload) = header.decode_slot(index, block) {
            assert!(payload.len() <= PAYLOAD_MAX);
        }
    }
}

/// The example with one line replaced, and the text by itself: either it is valid and everything that is computed from
/// it can be, or there are problems and each can be read.
pub fn config(data: &[u8]) {
    const EXAMPLE: &str = include_str!("../../config/three-databases.toml");
    judge(&String::from_utf8_lossy(data));
    let (place, rest) = number(data);
    let line = String::from_utf8_lossy(rest);
    let mut lines: Vec<&str> = EXAMPLE.lines().collect();
    let place = place % lines.len();
    lines[place] = &line;
    judge(&lines.join("\n"));
}

fn judge(text: &str) {
    match Config::parse(text, "regent.toml", None, "db1") {
        Ok(config) => {
            let _ = (report(&config), verdict_possible(&config), inequalities(&config), bounds(&config));
            assert!(config.nodes.contains_key(&config.node), "a node that is not in the file");
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a reason");
            problems.iter().for_each(|problem| assert!(!problem.to_string().is_empty()));
        }
    }
}

/// Metadata and output of a program that somebody else wrote.
pub fn fence_agent(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let inside = format!("<resource-agent name=\"x\">{text}</x a=''><action name=\"off\"/></resource-agent>");
    for text in [text.as_ref(), &inside] {
        if let Ok(found) = Metadata::parse(text) {
            assert!(!found.actions.is_empty());
            let names = found.parameters.iter().map(|p| p.name.len()).chain(found.actions.iter().map(String::len));
            assert!(names.sum::<usize>() <= text.len(), "more was read than was there");
        }
    }
    let kept = last_lines(&text, &text);
    assert!(kept.lines().count() <= 40 && kept.len() <= 2 * text.len() + 40);
    for text in [text.as_ref(), &format!("in-force {text}"), &format!("in-force fence=7 node={text} what={text}")] {
        let lines = text.lines().filter(|line| line.starts_with("in-force ")).count();
        let (found, bad) = in_force::parse(text);
        assert_eq!(found.len() + bad.len(), lines, "an answer was neither read nor named");
    }
    let options = BTreeMap::from([("password".to_owned(), "hunter2".to_owned())]);
    let told = Secrets::of(&options, |_| false).remove_from(&format!("{text}hunter2{text}"));
    assert!(!told.contains("hunter2"), "a secret was printed");
}

/// What a peer sends, once its certificate was checked: messages, Raft's heads, and the daemon's own calls.
pub fn peer_message(data: &[u8]) {
    round_trip::<proto::HelloReply>(data);
    round_trip::<proto::RaftRequest>(data);
    round_trip::<proto::CallRequest>(data);
    round_trip::<proto::Answer>(data);
    for kind in 0..=6 {
        let request = proto::RaftRequest { kind, head: data.to_vec(), body: Vec::new() };
        let _ = consensus::is_readable(&request);
    }
    if let Ok(call) = serde_json::from_slice::<Call>(data) {
        let once = serde_json::to_vec(&call).expect("what was read can be written");
        let again: Call = serde_json::from_slice(&once).expect("and read again");
        assert_eq!(serde_json::to_vec(&again).expect("as before"), once);
    }
    if let Ok(response) = serde_json::from_slice::<PeerResponse>(data) {
        let once = serde_json::to_vec(&response).expect("what was read can be written");
        assert_eq!(serde_json::from_slice::<PeerResponse>(&once).expect("and read again"), response);
    }
}

fn round_trip<M: prost::Message + Default + PartialEq>(data: &[u8]) {
    if let Ok(message) = M::decode(data) {
        assert!(M::decode(message.encode_to_vec().as_slice()).is_ok_and(|again| again == message));
    }
}

/// A request on the admin socket, and the daemon's answer as the command line reads it.
pub fn admin_request(data: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<admin::Request>(data) {
        let line = serde_json::to_string(&request).expect("what was read can be written");
        assert!(!line.contains('\n'), "a request is one line");
        assert_eq!(serde_json::from_str::<admin::Request>(&line).expect("and read again"), request);
    }
    if let Ok(response) = serde_json::from_slice::<admin::Response>(data) {
        let line = serde_json::to_string(&response).expect("what was read can be written");
        assert!(!line.contains('\n'), "a response is one line");
        assert!(serde_json::from_str::<admin::Response>(&line).is_ok_and(|r| r.is_final() == response.is_final()));
    }
}

/// Valid inputs of each door, to begin from.
#[allow(dead_code, reason = "the fuzz targets begin from files")]
pub mod valid {
    use super::*;
    use regent::api::admin::Request;
    use regent::node::PeerRequest;

    pub fn heartbeats() -> Vec<Vec<u8>> {
        let heartbeat = Heartbeat {
            cluster: ClusterId("orders".into()),
            node: "db2".parse().expect("valid"),
            boot: Boot("boot".into()),
            incarnation: Incarnation(3),
            sequence: 9,
            body: Some(HeartbeatBody::default()),
        };
        let whole = wire::encode(&heartbeat, &Key::new(&KEY));
        // Without its signature: the target signs what it is given.
        let unsigned = whole[..whole.len() - 32].to_vec();
        vec![unsigned, serde_json::to_vec(&HeartbeatBody::default()).expect("plain data")]
    }

    pub fn blocks() -> Vec<Vec<u8>> {
        let slots = vec![Some("db1".parse().expect("valid")), None];
        let header = Header { cluster: ClusterId("orders".into()), disk: DiskId([9; 16]), generation: 2, slots };
        let header_block = header.encode();
        let slot = header.encode_slot(1, b"beat");
        // The two bytes before a block say which slot is meant.
        vec![[&[0, 1], &header_block[..200]].concat(), [&[0, 1], &slot[..200]].concat()]
    }

    pub fn configs() -> Vec<Vec<u8>> {
        let example = include_str!("../../config/two-databases-and-witness.toml");
        vec![example.into(), b"\0\x20ttl = \"9s\"".to_vec(), b"node = \"db1\"\n[nodes.db1]\n".to_vec()]
    }

    pub fn metadata() -> Vec<Vec<u8>> {
        let ipmi = include_str!("../../fence-agents/ipmi/metadata.xml");
        vec![ipmi.into(), b"<parameter name=\"ip\" required='1'/>\n".to_vec()]
    }

    pub fn messages() -> Vec<Vec<u8>> {
        use prost::Message;
        let hello = proto::HelloReply {
            cluster: "orders".into(),
            node: "db1".into(),
            id: 1,
            founders: [("db1".to_owned(), "mark".to_owned())].into(),
            voters: vec!["db1".into(), "db2".into()],
            ..Default::default()
        };
        let operator = Call::Operator { request: Request::Status, who: "root".into() };
        let lease = r#"{"lease":{"service":"orders","epoch":3,"number":1,"node":"db1","boot":"b","incarnation":2}}"#;
        let lease: PeerRequest = serde_json::from_str(lease).expect("a lease request");
        let relay = Call::Node(PeerRequest::Relay(Box::new(lease)));
        let json = |call: &Call| serde_json::to_vec(call).expect("plain data");
        vec![hello.encode_to_vec(), json(&operator), json(&relay)]
    }

    pub fn requests() -> Vec<Vec<u8>> {
        let requests = [
            Request::Status,
            Request::Switchover { service: None, to: Some("db2".parse().expect("valid")), dry_run: true },
            Request::Explain { incident: None },
        ];
        let mut lines: Vec<_> = requests.iter().map(|r| serde_json::to_vec(r).expect("plain data")).collect();
        lines.push(br#"{"answer":"refused","reasons":["no"]}"#.to_vec());
        lines
    }
}
