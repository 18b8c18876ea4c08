# The commands of this repository. `make` alone lists them.
#
# Everything is built in one profile (dev) and with one feature set, so that nothing is built twice.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
CARGO ?= cargo
PREFIX ?= /usr
DESTDIR ?=
# Over which versions of PostgreSQL `make versions` runs, and which tests: parts of their names, none = all.
VERSIONS ?= 13 14 15 16 17 18
TESTS ?=
# How often `make lab` runs every scenario.
N ?= 1
# How many scenarios `make lab` runs at once.
JOBS ?= 1
# How many seeds `make sim` runs; with SEED it runs that one.
SEEDS ?= 160
SEED ?=
# For how many minutes `make sim-long` runs, and for how many simulated minutes faults strike in each of its seeds.
MINUTES ?= 10
SIM_MINUTES ?= 10
# The event log that `make sim-replay` steps through.
LOG ?=
# How long each target of `make fuzz` runs, and which; none named = all.
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?=
# Tests of databases and devices mostly wait: so many run at once.
export RUST_TEST_THREADS ?= 4
# The part of the lab that `make test` runs: names, or beginnings of names, of scenarios.
LAB_SHORT ?= world without_a_fence power_cut_of_the_primary both_networks_of_the_primary daemon_killed switchover_dry_run
# Tests that a plain `cargo test` leaves out. --all-targets leaves them out too, and cargo ignores names beside it.
BY_NAME = $(shell awk '$$1 == "name" { gsub(/"/, ""); name = $$3 } /^test = false/ { print name }' Cargo.toml)

.DEFAULT_GOAL := help
# Targets share one cargo and one machine's addresses: never side by side.
.NOTPARALLEL:
.PHONY: help prepare build check test demo sim sim-bugs sim-long sim-replay sim-raft golden store model fuzz lab lab-self-test lab-large booted backup versions bench-failover bench-quorum install clean

help: ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

prepare: ## install what is missing on Debian 12 (root or sudo; does nothing when nothing is missing)
	@scripts/prepare

build: prepare ## build regent and its fence agents
	$(CARGO) build --bins

check: prepare ## what needs no root and little time: format, lints, unit tests, golden texts, tidy
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) clippy $(BY_NAME:%=--test %) -- -D warnings
	$(CARGO) test --lib --bins --test golden
	$(CARGO) test --test tidy

test: prepare ## everything that must pass: the tests, small simulations, the lab's short half, the demo (root)
	@scripts/needs-root "make test"
	scripts/timed "building" $(CARGO) test --no-run
	scripts/timed "the tests" $(CARGO) test
	scripts/timed "the lab's short half" $(CARGO) test --test lab -- $(LAB_SHORT)
	scripts/timed "the simulator's known bugs" $(CARGO) test --test sim -- --bugs
	$(CARGO) build --bins
	scripts/timed "the demo" target/debug/regent demo

demo: prepare ## three nodes with real PostgreSQL here, a power cut, the story, a switchover (root or sudo)
	@scripts/needs-root "make demo"
	$(CARGO) build --bins
	target/debug/regent demo

sim: prepare ## the simulation: found seeds, stories, known failures, SEEDS random seeds (SEEDS=160), or one (SEED=4711)
	$(CARGO) test --test sim -- $(if $(SEED),--seed $(SEED) --trace,--seeds $(SEEDS))

sim-bugs: prepare ## the simulator is tested: it must find each bug that is built in on purpose
	$(CARGO) test --test sim -- --bugs

sim-long: prepare ## random seeds for MINUTES of real time (MINUTES=10), optimised, with totals (a build of its own)
	$(CARGO) test --profile sim --test sim -- --only-random --minutes $(SIM_MINUTES) --for $(MINUTES)

sim-replay: prepare ## step through the event log of a failed seed in words (LOG=target/sim-logs/seed-N.log)
	$(CARGO) test --test sim -- --replay $(abspath $(LOG))

golden: prepare ## the golden stories and what they cover; REWRITE=1 accepts what comes out (read the difference)
	$(CARGO) test --test golden

store: prepare ## the log on disk: openraft's storage suite, crashes at any moment, damage, a full disk
	$(CARGO) test --lib consensus::store

model: prepare ## the protocol as a model, every state of every scope, the large ones too (minutes)
	$(CARGO) test --test model -- --deep

fuzz: prepare ## each fuzz target for FUZZ_SECONDS (60): runs and crashes (a build of its own; FUZZ_TARGETS=config)
	FUZZ_SECONDS=$(FUZZ_SECONDS) scripts/fuzz $(FUZZ_TARGETS)

sim-raft: SEEDS = 20
sim-raft: prepare ## the same cluster on the real openraft, SEEDS of them (SEEDS=20), and every story
	$(CARGO) test --test raft_sim -- --story ""
	$(CARGO) test --test raft_sim -- --seeds $(SEEDS)

lab: prepare ## every lab scenario N times (N=5), JOBS at once (JOBS=2), without retries (root)
	@scripts/needs-root "make lab"
	$(CARGO) test --test lab -- --repeat $(N) --jobs $(JOBS)

lab-self-test: prepare ## the lab must see two writers where the fence is disabled on purpose (root)
	@scripts/needs-root "make lab-self-test"
	$(CARGO) test --test lab -- without_a_fence

lab-large: prepare ## a database of 4 GB: power cuts, recoveries, copies, rewinds, switchovers, three times each (root; 40 min)
	@scripts/needs-root "make lab-large"
	$(CARGO) test --test lab -- large_ --show-output

booted: ## hosts that boot (systemd-nspawn): install, restarts, reboots, the service watchdog (root; installs what it needs)
	@scripts/needs-root "make booted"
	@scripts/prepare booted
	$(CARGO) test --test booted -- --show-output

backup: ## copies and restores by pgBackRest and Barman, as docs/backup.md shows them (root; installs both)
	@scripts/needs-root "make backup"
	@scripts/prepare backup
	$(CARGO) test --test backup -- --nocapture --test-threads=1

bench-failover: prepare ## measure failover and switchover times of the release build in the lab (root; minutes)
	@scripts/needs-root "make bench-failover"
	$(CARGO) build --release --bins
	REGENT_UNDER_TEST=$(CURDIR)/target/release/regent $(CARGO) test --test bench_failover

bench-quorum: prepare ## measure commits, quorum reads and leader changes over loopback (a minute)
	$(CARGO) test --test bench_quorum

versions: prepare ## the engine's tests over PostgreSQL 13 to 18, fetched beside this one (VERSIONS="16 17" TESTS="lost::"; root; 40 min)
	@scripts/needs-root "make versions"
	VERSIONS='$(VERSIONS)' scripts/versions $(TESTS)

install: ## install the release build under DESTDIR (run `cargo build --release` first)
	DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' scripts/install

clean: ## remove everything that was built
	$(CARGO) clean
