//! Acting on the world: what a plan's steps come down to, but for the database itself (`crate::engine`).

pub mod guard;
pub mod watchdog;
