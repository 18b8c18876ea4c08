//! Actions: what touches the world outside the database (that is `crate::engine`). Each runs to an outcome; none
//! decides anything.

pub mod agent_metadata;
pub mod agent_output;
pub mod fence;
pub mod guard;
pub mod in_force;
mod process;
pub mod secrets;
pub mod watchdog;
