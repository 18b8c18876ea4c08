//! Heartbeat channels: independent paths on which nodes tell each other that they live. UDP on two networks, and a slot
//! on a shared disk.
//!
//! A channel carries bytes and says when they arrived and whether it can be used; whether anybody is suspect is the
//! detector's business (`crate::detector`). Pure parts: `wire`, `replay`, `gate`, `disk_format`.
//!
//! ```text
//! socket or slot ─► gate: authentic, of this cluster, from a known node? ─► Arrival ─► replay: is it new? ─► detector
//!                     └─► refusals, counted for `status`
//! ```

pub mod disk;
pub mod disk_admin;
mod disk_file;
pub mod disk_format;
mod disk_turn;
pub mod gate;
pub mod goodbye;
mod intake;
pub mod key;
pub mod replay;
mod socket;
pub mod udp;
pub mod wire;

pub use disk::Disk;
pub use gate::{Gate, Refused};
pub use intake::{Arrival, Intake};
pub use key::Keys;
pub use replay::{Freshness, Replay};
pub use udp::Udp;
