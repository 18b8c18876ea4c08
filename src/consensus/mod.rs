//! Raft.
pub mod event;
mod machine;
pub mod raft;
pub mod store;
