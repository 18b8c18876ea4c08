//! Actions: what touches the world outside the database (that is `crate::engine`). Each runs to an outcome; none
//! decides anything.

pub mod agent_metadata;
pub mod agent_output;
pub mod confinement;
mod daemon_watch;
pub mod fence;
pub mod guard;
pub mod in_force;
pub mod leash;
pub mod leashes;
pub mod leftovers;
mod process;
pub mod secrets;
mod spawn;
pub mod watchdog;
