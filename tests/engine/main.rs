//! The PostgreSQL engine against real servers: root, PostgreSQL 15 of Debian or the programs that `REGENT_TEST_BIN_DIR`
//! names, loopback addresses, one temporary directory a test. Every test stops what it started by its own cgroups, also
//! when it fails.

#![expect(clippy::disallowed_methods, reason = "tests of the real world wait for it and time it")]

mod blocked;
mod cluster;
mod coming_back;
mod commands;
mod company;
mod copies;
mod files;
mod fitness;
mod foreign;
mod full;
mod goodbye;
mod guarding;
mod held;
mod life;
mod lost;
mod moving;
mod networks;
mod numbers;
mod older;
mod ordered;
mod outsiders;
mod places;
mod private;
mod roles;
mod slots;
mod survey;
mod trouble;
mod versions;
mod watchdog;
