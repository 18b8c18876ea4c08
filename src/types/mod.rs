//! The words of regent as types: names, numbers with a meaning, times, positions, views, and the values that cross
//! from decision to action and back.
//!
//! Not here: any rule about them. Nothing in this folder reads a clock, draws a random number or touches the world.

mod agent;
mod copying;
mod database;
mod files;
mod fitness;
mod goodbye;
mod heartbeat;
mod id;
mod lag;
mod leaving;
mod lost;
mod name;
mod network;
mod position;
mod quoted;
mod room;
mod severity;
mod shared;
mod size;
mod survey;
mod time;
mod trouble;
mod view;

pub use agent::{AgentAction, AgentKind, AgentOrder, AgentOutcome, AgentRun, OFFER, Standing};
pub use copying::{CopyHealth, CopyProgress, CopyStage};
pub use database::{
    DbAction, DbDone, DbOutcome, DbState, KeptFolder, Observation, Seal, StopLadder, SystemId, Upstream,
};
pub use files::{FileFault, Files, PENDING_SHOWN};
pub use fitness::{Lack, Unfit, shortened};
pub use goodbye::{Goodbye, LeftGoodbye, fitting};
pub use heartbeat::{Alarm, Failing, Health, HeardEnd, Heartbeat, HeartbeatBody, Released, ServiceHealth};
pub use id::{Boot, ClusterId, Epoch, FenceId, Incarnation, IncidentId, LogIndex, NodeId, Round, Term};
pub use lag::{LAG_SAMPLE, LagTracker, ReplayLag};
pub use leaving::Leaving;
pub use lost::{
    LostChange, LostSummary, LostTransaction, MissingWal, ParseFileError, RelationFile, RelationName, RelationSort,
};
pub use name::{AgentName, ChannelName, InvalidName, NodeName, ServiceName};
pub use network::Network;
pub use position::{History, Lsn, ParseLsnError, Position, Timeline};
pub use quoted::Quoted;
pub use room::Room;
pub use severity::Severity;
pub use size::Size;
pub use survey::{Archiver, LastCheckpoint, OpenSession, Prepared, Replay, Sessions, Survey, WalReader};
pub use time::{Instant, Span, WallTime};
pub use trouble::{Fails, Silence, Trouble, TroubleKind};
pub use view::{PeerView, Sight};
