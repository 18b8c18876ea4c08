//! The PostgreSQL engine against real servers: root, PostgreSQL 15 of Debian or the programs that `REGENT_TEST_BIN_DIR`
//! names, loopback addresses, one temporary directory a test. Every test stops what it started by its own cgroups, also
//! when it fails.

#![expect(clippy::disallowed_methods, reason = "tests of the real world wait for it and time it")]

mod as_much;
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
mod hardening;
mod held;
mod life;
mod lost;
mod moving;
mod networks;
mod numbers;
mod older;
mod on_host;
mod ordered;
mod outsiders;
mod own_files;
mod passwords;
mod places;
mod private;
mod refusals;
mod roles;
mod slots;
mod slow;
mod survey;
mod trouble;
mod versions;
mod watchdog;
