//! `regent demo`: three nodes with real PostgreSQL on this host's loopback network, a power cut of the primary's node,
//! the story as it happens, the explained incident, a switchover, and nothing left behind.
//!
//! It talks to the daemons as an operator would, over their admin sockets. It shows; the tests prove.

mod place;
mod story;
mod writer;

use super::{Exit, output, render, verb};
use crate::api::admin::{Request, Response};
use crate::api::status::{IncidentKind, Phase, ServiceStatus, Status};
use crate::types::{DbState, IncidentId, NodeName};
use anyhow::Context;
use place::{NODES, PORT, Place, SERVICE};
use std::time::Duration;
use story::Story;
use tokio::signal::unix::{SignalKind, signal};
use writer::Writer;

#[derive(clap::Args)]
pub struct Arguments {
    /// Leave the cluster running afterwards, and say how to play with it
    #[arg(long)]
    keep: bool,
}

/// Setting up three databases, on a slow machine.
const READY_WITHIN: Duration = Duration::from_secs(180);
/// Any single move. The bound that the configuration implies is far below it.
const MOVED_WITHIN: Duration = Duration::from_secs(60);

pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    place::check()?;
    verb::block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let place = Place::make()?;
        let ended = tokio::select! {
            ended = show(&place) => ended,
            _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
            _ = terminate.recv() => Err(anyhow::anyhow!("terminated")),
        };
        if arguments.keep {
            output::say(&how_to_play(&place));
        } else {
            output::say("\n== Cleaning up");
            place.stop();
        }
        ended.map(|()| Exit::Done)
    })
}

async fn show(place: &Place) -> anyhow::Result<()> {
    let mut story = Story::default();
    story.chapter("Three nodes are switched on; the first makes the database, the others copy it");
    place.start()?;
    let status = story.until(place, "a cluster that is ready for a failover", READY_WITHIN, is_ready).await?;
    output::say(&format!("\n{}", render::status(&status)));

    story.chapter("A client writes");
    let writer = Writer::start(place);
    wait_for_rows(&writer, 200).await?;
    writer.take_longest_gap();
    output::say(&format!("            {} rows acknowledged so far", writer.acknowledged()));

    let first = primary(&status)?;
    power_cut(place, &mut story, &writer, &first).await?;
    come_back(place, &mut story, &first).await?;
    switchover(place, &mut story, &writer, &first).await
}

async fn power_cut(place: &Place, story: &mut Story, writer: &Writer, first: &NodeName) -> anyhow::Result<()> {
    story.chapter(&format!("The power of {first}, the primary's node, is cut"));
    place.power(first.as_str(), "off")?;
    let moved = |status: &Status| {
        let is_elsewhere = |s: &ServiceStatus| s.phase == Phase::Installed && s.primary.as_ref() != Some(first);
        status.services.values().all(is_elsewhere)
    };
    story.until(place, "the failover", MOVED_WITHIN, moved).await?;
    let before = writer.acknowledged();
    wait_for_rows(writer, before + 50).await?;
    let gap = writer.take_longest_gap();
    output::say(&format!("\nThe client could not write for {} ms.", gap.as_millis()));
    match writer.lost().await? {
        0 => output::say("Every row that was acknowledged to it is there."),
        n => {
            output::say(&format!("{n} acknowledged rows had not reached a standby (replication is asynchronous here)."))
        }
    }
    explain_latest(place, IncidentKind::Failover).await
}

/// The fence has switched the node on again (`power_on = "auto"`): it must return as a standby by itself.
async fn come_back(place: &Place, story: &mut Story, first: &NodeName) -> anyhow::Result<()> {
    story.chapter(&format!("{first} has its power back and returns as a standby"));
    let returned = |status: &Status| {
        let streams = |s: &ServiceStatus| {
            s.databases.get(first).is_some_and(|d| d.state == DbState::Standby && d.streams_from.is_some())
        };
        is_ready(status) && status.services.values().all(streams)
    };
    story.until(place, "the return of the fenced node", READY_WITHIN, returned).await?;
    Ok(())
}

async fn switchover(place: &Place, story: &mut Story, writer: &Writer, to: &NodeName) -> anyhow::Result<()> {
    story.chapter(&format!("An operator moves the primary back: regent switchover --to {to}"));
    writer.take_longest_gap();
    let request = Request::Switchover { service: None, to: Some(to.clone()), dry_run: false };
    match story::ask(place, &request, MOVED_WITHIN).await? {
        Response::Done { message, details } => output::say(&render::with_details(&message, &details)),
        other => anyhow::bail!("{}", verb::unexpected(&other)),
    }
    let before = writer.acknowledged();
    wait_for_rows(writer, before + 50).await?;
    let gap = writer.take_longest_gap();
    let lost = writer.lost().await?;
    anyhow::ensure!(lost == 0, "a switchover lost {lost} acknowledged rows: it must lose none");
    output::say(&format!("\nThe client could not write for {} ms, and lost nothing.", gap.as_millis()));
    explain_latest(place, IncidentKind::Switchover).await
}

async fn explain_latest(place: &Place, kind: IncidentKind) -> anyhow::Result<()> {
    // A node that has just come back reads the ledger anew and may not have got there yet.
    let (node, id) = tokio::time::timeout(MOVED_WITHIN, find_latest(place, kind))
        .await
        .context("the ledger has no such incident")?;
    match story::ask_node(place, node, &Request::Explain { incident: Some(id) }, verb::ANSWER_WITHIN).await? {
        Response::Incident(report) => output::say(&format!("\n{}", render::incident(&report))),
        other => anyhow::bail!("{}", verb::unexpected(&other)),
    }
    Ok(())
}

/// The latest incident of this kind, and a node that knows it.
#[expect(clippy::disallowed_methods, reason = "how often the demo looks: it shows, and decides nothing")]
async fn find_latest(place: &Place, kind: IncidentKind) -> (&'static str, IncidentId) {
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    loop {
        tick.tick().await;
        for (node, _) in NODES {
            let answer = story::ask_node(place, node, &Request::History, verb::ANSWER_WITHIN).await;
            let Ok(Response::History { incidents }) = answer else { continue };
            if let Some(found) = incidents.iter().find(|i| i.kind == kind && i.closed_at_ms.is_some()) {
                return (node, found.id);
            }
        }
    }
}

/// Every node is in, every standby streams, and the coordinator says that a failover would succeed.
fn is_ready(status: &Status) -> bool {
    let is_ready = |service: &ServiceStatus| {
        service.phase == Phase::Installed
            && service.readiness.failover_ready
            && service.databases.len() == NODES.len()
            && service
                .databases
                .iter()
                .all(|(node, database)| service.primary.as_ref() == Some(node) || database.streams_from.is_some())
    };
    !status.services.is_empty() && status.services.values().all(is_ready)
}

fn primary(status: &Status) -> anyhow::Result<NodeName> {
    let service = status.services.values().next().context("there is no service")?;
    service.primary.clone().context("there is no primary")
}

#[expect(clippy::disallowed_methods, reason = "how often the demo looks: it shows, and decides nothing")]
async fn wait_for_rows(writer: &Writer, rows: usize) -> anyhow::Result<()> {
    let enough = async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        while writer.acknowledged() < rows {
            tick.tick().await;
        }
    };
    tokio::time::timeout(MOVED_WITHIN, enough).await.with_context(|| format!("the client did not get to {rows} rows"))
}

fn how_to_play(place: &Place) -> String {
    let folder = place.folder.display();
    let hosts: Vec<String> = place.sockets().iter().map(|socket| socket.display().to_string()).collect();
    format!(
        "\n== The cluster keeps running in {folder}\n\
         \x20 export REGENT_CONFIG={folder}/nodes/db1/regent.toml     (db2, db3: the other nodes' daemons)\n\
         \x20 {folder}/regent status --watch\n\
         \x20 {folder}/regent switchover --dry-run\n\
         \x20 {folder}/nodes/db1/power off        cut a node's power (on, status)\n\
         \x20 psql \"host={} port={PORT} user=postgres dbname=postgres target_session_attrs=read-write\"\n\
         \x20 less {folder}/nodes/db1/log\n\
         \x20 {folder}/stop                       end and remove everything (service {SERVICE})",
        hosts.join(",")
    )
}
