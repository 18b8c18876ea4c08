//! What people and their tools see of a node: the schema of `status` and of incidents, and the admin socket on which
//! the command line asks the daemon.
//!
//! Not here: how anything is decided or rendered. The daemon fills these values, `crate::cli` shows them.

pub mod admin;

pub mod client;

pub mod lost;

pub mod socket;

pub mod status;

#[cfg(test)]
mod socket_test;
