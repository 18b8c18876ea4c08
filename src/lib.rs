//! regent keeps exactly one writable primary per database service.
//!
//! ```text
//!  channels (I/O)              detector (pure)             ledger (pure, replicated by Raft)
//!  UDP primary   ─┐                                          ▲            │
//!  UDP secondary ─┼─ heartbeats ─► phi per peer+channel ─► view ─► coordinator (pure, on the leader)
//!  shared disk   ─┘      ▲                                   │            │ proposals, fence orders
//!                        └────── own view rides along ◄──────┘            ▼
//!                                                               ledger, applied on every node
//!                                                                         │
//!                                        keeper (pure) ◄──────────────────┘
//!                                           │ actions
//!                              engine · fence agents · watchdog (I/O)
//! ```
//!
//! Decisions are pure functions of (state, event, now). The modules stand in the order in which data flows.

pub mod types;

pub mod detection;

pub mod config;

pub mod clock;

pub mod scheduling;

pub mod last_words;

pub mod errors;

pub mod durable;

pub mod rights;

pub mod channel;

pub mod detector;

pub mod ledger;

pub mod lease;

pub mod plan;

pub mod node;

pub mod action;

pub mod engine;

pub mod consensus;

pub mod api;

pub mod pages;

pub mod daemon;

pub mod cli;

pub mod known_bugs;
