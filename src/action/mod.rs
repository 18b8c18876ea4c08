//! Actions: what touches the world outside the database. Each runs to an outcome; none decides anything.

pub mod agent_metadata;
pub mod fence;
mod process;
mod secrets;
