//! `tests/golden/cli/lost*.jsonl` are what `regent lost --json` prints, a part a line; `.txt` beside each is what people see
//! of it. The lines pin the schema as well. `REWRITE=1` rewrites both; review the difference.

use super::lost::Listing;
use crate::api::lost::{Loss, LostPart, LostWal};
use crate::api::status::{CameBack, MayBeLost, SCHEMA};
use crate::types::{
    Epoch, IncidentId, LostChange, LostSummary, LostTransaction, Lsn, MissingWal, RelationFile, RelationName,
    RelationSort, Timeline, WallTime,
};
use std::fs;
use std::path::Path;

const FOLDER: &str = "/var/lib/postgresql/15/main.diverged-20261130T014601123Z-1";

fn loss(wal: Option<LostWal>, not_read: Option<&str>, came_back: bool) -> LostPart {
    let back = CameBack {
        at_ms: WallTime(1_796_003_161_123),
        how: "rewound to 0/152B3E8 on timeline 1".into(),
        kept: vec![FOLDER.into()],
    };
    let what = MayBeLost {
        service: "orders".parse().expect("a name"),
        epoch: Epoch(1),
        node: "db1".parse().expect("a name"),
        timeline: Timeline(1),
        after: Lsn(0x152_B3E8),
        by: "db2".parse().expect("a name"),
        came_back: came_back.then_some(back),
    };
    let not_read = not_read.map(str::to_owned);
    LostPart::Loss(Box::new(Loss { schema: SCHEMA, incident: IncidentId(7), what, wal, not_read }))
}

fn kept(end: Option<u64>) -> Option<LostWal> {
    Some(LostWal { folder: FOLDER.into(), timeline: Timeline(1), fork: Lsn(0x152_B3E8), end: end.map(Lsn) })
}

fn change(number: u32, name: Option<(&str, RelationSort)>, rows: (u64, u64, u64)) -> LostChange {
    LostChange {
        file: RelationFile { tablespace: 1663, database: 5, number },
        relation: name.map(|(name, sort)| RelationName {
            database: "shop".into(),
            schema: "public".into(),
            name: name.into(),
            sort,
        }),
        made: false,
        removed: false,
        inserted: rows.0,
        updated: rows.1,
        deleted: rows.2,
    }
}

fn transaction(xid: u32, relations: Vec<LostChange>) -> LostTransaction {
    LostTransaction {
        xid,
        committed_at: format!("2026-11-30 01:45:40.{:06}Z", xid * 83),
        commit: Lsn(0x152_B3E8 + u64::from(xid - 720) * 0x1000),
        prepared: false,
        subtransactions: 0,
        relations,
        catalog: false,
        partly_seen: false,
    }
}

/// The pages: their names, and what stands on them.
fn pages() -> Vec<(&'static str, Vec<LostPart>)> {
    let orders = |rows| change(16384, Some(("orders", RelationSort::Table)), rows);
    let pieces = change(16391, Some(("orders", RelationSort::Toast)), (4, 0, 0));
    let gone = LostChange { removed: true, ..change(16396, Some(("basket", RelationSort::Table)), (0, 0, 0)) };
    let made = LostChange { made: true, ..change(16404, None, (500, 0, 0)) };
    let transactions = [
        LostTransaction { partly_seen: true, ..transaction(727, vec![orders((3, 2, 1))]) },
        LostTransaction { subtransactions: 2, ..transaction(731, vec![orders((1, 0, 0)), pieces]) },
        LostTransaction { prepared: true, subtransactions: 1, ..transaction(735, vec![orders((0, 2, 0))]) },
        LostTransaction { catalog: true, ..transaction(742, vec![gone, made]) },
        LostTransaction { catalog: true, ..transaction(743, vec![]) },
    ];
    let told = || transactions.iter().cloned().map(LostPart::Transaction);
    let summary = LostSummary {
        transactions: 5,
        without_rows: 4,
        rolled_back: 2,
        open: 1,
        prepared: 1,
        read_to: Some(Lsn(0x157_2EE0)),
        missing: Vec::new(),
        unnamed: None,
    };
    let gap = |first: &str, last: &str, after: Option<u64>, why: Option<&str>| MissingWal {
        first: format!("0000000100000000000000{first}"),
        last: format!("0000000100000000000000{last}"),
        after: after.map(Lsn),
        why: why.map(str::to_owned),
    };
    let error =
        "pg_waldump: error: error in WAL record at 0/5001FB0: incorrect resource manager data checksum in record";
    let missing =
        vec![gap("02", "03", None, None), gap("05", "05", Some(0x500_1FF8), Some(error)), gap("06", "06", None, None)];
    let unnamed = transaction(727, vec![change(16384, None, (3, 2, 1))]);
    let incomplete = LostSummary {
        transactions: 1,
        missing,
        unnamed: Some("cannot connect to the local server: error connecting to server".into()),
        ..LostSummary::default()
    };
    let elsewhere = format!("its WAL is kept on db1, in {FOLDER}: run `regent lost 7` on db1");
    let away = "db1 has not come back as a standby: when it does, its WAL is kept there and can be listed; while its host is \
                off, --wal DIR reads its pg_wal from wherever that is mounted";
    vec![
        (
            "lost",
            [loss(kept(Some(0x157_2EE0)), None, true)]
                .into_iter()
                .chain(told())
                .chain([LostPart::End(summary)])
                .collect(),
        ),
        (
            "lost_incomplete",
            vec![loss(kept(None), None, true), LostPart::Transaction(unnamed), LostPart::End(incomplete)],
        ),
        ("lost_nothing", vec![loss(kept(Some(0x152_B420)), None, true), LostPart::End(LostSummary::default())]),
        ("lost_elsewhere", vec![loss(None, Some(&elsewhere), true)]),
        ("lost_not_back", vec![loss(None, Some(away), false)]),
    ]
}

#[test]
fn what_was_lost_is_shown_as_the_golden_texts_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cli");
    let rewrite = std::env::var_os("REWRITE").is_some();
    let mut wrong = Vec::new();
    for (page, parts) in pages() {
        let mut listing = Listing::default();
        let text: String = parts.iter().map(|part| listing.part(part)).collect();
        let json = |part| serde_json::to_string(part).expect("plain data") + "\n";
        let lines: String = parts.iter().map(json).collect();
        for (extension, now) in [("txt", text), ("jsonl", lines)] {
            let file = folder.join(page).with_extension(extension);
            if fs::read_to_string(&file).unwrap_or_default() == now {
                continue;
            }
            match rewrite {
                true => fs::write(&file, &now).expect("a writable folder"),
                false => wrong.push(format!("{}: it is now\n{now}", file.display())),
            }
        }
        let written = fs::read_to_string(folder.join(page).with_extension("jsonl")).unwrap_or_default();
        let read = |line: &str| serde_json::from_str::<LostPart>(line).expect("a line of the schema");
        assert_eq!(
            written.lines().map(read).collect::<Vec<_>>(),
            parts,
            "{page}: the lines are read as they were written"
        );
    }
    assert!(wrong.is_empty(), "REWRITE=1 accepts what follows\n{}", wrong.join("\n"));
}
