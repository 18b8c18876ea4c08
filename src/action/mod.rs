//! Actions: what touches the world outside the database (that is `crate::engine`). Each runs to an outcome; none
//! decides anything.

pub mod agent_metadata;
pub mod fence;
pub mod guard;
mod process;
mod secrets;
pub mod watchdog;
