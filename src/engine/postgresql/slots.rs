//! Physical replication slots: a primary has one for every other database node, so that it keeps the WAL which that node
//! still needs; a standby has those of the nodes that the file lets follow it, and no others. Made and dropped at once where
//! a server begins to be one or the other, and looked at again every few seconds.
//!
//! The slot of a node that follows a standby is moved on at the primary with that standby's: it holds what the node would ask
//! for if it had to follow the primary, and not everything.
//!
//! What a name begins with says whose a slot is: every other slot, and every logical one, is the operator's and is never
//! touched. A slot that somebody reads from is never dropped.
//!
//! Not here: how much WAL a slot may hold (`settings.rs`), and whether a standby needs a copy (`rejoin.rs`).
//!
//! Source: PostgreSQL manual, Replication Slots, and pg_replication_slots for what `wal_status` says.

#![expect(clippy::disallowed_methods, reason = "how often slots are looked at: a plain wait that proves nothing")]

use super::core::Core;
use super::error::{EngineError, Result};
use super::session::Session;
use super::{access, outsiders};
use crate::types::{Lsn, NodeName};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// With this begins the name of every slot that is regent's.
const PREFIX: &str = "regent_";
/// The longest name that PostgreSQL takes.
const LONGEST: usize = 63;
/// How often they are looked at.
const EVERY: Duration = Duration::from_secs(3);
/// With how many of these looks the slots of outsiders are moved along.
const ALONG: u32 = 3;
/// How often, and for how long, it is looked whether a slot is free that a copy needs. A connection that was lost ends within
/// that time (`settings.rs`: `STREAM_ENDS`).
const POLL: Duration = Duration::from_millis(100);
const POLLS: u32 = 80;

/// Server errors that mean that somebody else was quicker: the slot is there already, is gone, or is in use.
const OVERTAKEN: [&str; 3] = ["42710", "42704", "55006"];

/// The slot through which this node follows, at whoever is the primary. Different nodes have different ones.
///
/// A name that is no slot's name as it stands gets its checksum as an end, and so does one that looks as if it had it.
pub fn slot_of(node: &NodeName) -> String {
    let name = node.as_str();
    let legal = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let mut slot: String = PREFIX.chars().chain(name.chars().map(legal)).collect();
    let looks_like_one = name
        .rsplit_once('_')
        .is_some_and(|(_, end)| end.len() == 8 && end.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c)));
    if slot.len() <= LONGEST && slot[PREFIX.len()..] == *name && !looks_like_one {
        return slot;
    }
    slot.truncate(LONGEST - 9);
    format!("{slot}_{:08x}", crc32fast::hash(name.as_bytes()))
}

/// What the server says of one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slot {
    /// A physical one that outlives its connection.
    is_lasting: bool,
    /// The process that reads from it.
    used_by: Option<i32>,
    /// From where on it keeps WAL.
    from: Option<Lsn>,
    is_lost: bool,
}

impl Slot {
    /// It keeps nothing, and only another one in its place would.
    fn is_spent(&self) -> bool {
        self.is_lost || self.from.is_none()
    }
}

/// What is done to a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// On a primary: nobody needs it.
    Drop(String),
    /// It was lost: what it was for may need a copy.
    Renew(String),
    Make(String),
    /// Its node follows another one.
    Advance(String, Lsn),
    /// Left over from when this standby was a primary.
    Clear(String),
}

/// What a primary does about its slots: `wanted` are those of the other nodes and of outsiders. Drops come first, because they
/// make room. `follow`: of each node that follows a standby its slot, and that one's.
fn of_primary(present: &BTreeMap<String, Slot>, wanted: &BTreeSet<String>, follow: &[(String, String)]) -> Vec<Step> {
    let advanced = follow.iter().filter_map(|(slot, of_followed)| {
        let idle =
            present.get(slot).filter(|found| is_ours(slot, found) && found.used_by.is_none() && !found.is_spent())?;
        let to = present.get(of_followed)?.from.filter(|to| Some(*to) > idle.from)?;
        Some(Step::Advance(slot.clone(), to))
    });
    let gone = unwanted(present, wanted).map(Step::Drop);
    gone.chain(provide(present, wanted)).chain(advanced).collect()
}

/// What a standby does: what it kept for nodes that do not follow it, it would keep for ever. `wanted`: those of the nodes
/// that do, and of outsiders.
fn of_standby(present: &BTreeMap<String, Slot>, wanted: &BTreeSet<String>) -> Vec<Step> {
    unwanted(present, wanted).map(Step::Clear).chain(provide(present, wanted)).collect()
}

fn unwanted<'a>(
    present: &'a BTreeMap<String, Slot>,
    wanted: &'a BTreeSet<String>,
) -> impl Iterator<Item = String> + 'a {
    let free = present.iter().filter(|(name, slot)| is_ours(name, slot) && slot.used_by.is_none());
    free.filter(|(name, _)| !wanted.contains(*name)).map(|(name, _)| name.clone())
}

/// What is spent is made anew, and what is missing made.
fn provide(present: &BTreeMap<String, Slot>, wanted: &BTreeSet<String>) -> Vec<Step> {
    let spent = present
        .iter()
        .filter(|(name, slot)| wanted.contains(*name) && slot.is_lasting && slot.used_by.is_none() && slot.is_spent());
    let missing = wanted.iter().filter(|name| !present.contains_key(*name));
    spent.map(|(name, _)| Step::Renew(name.clone())).chain(missing.map(|name| Step::Make(name.clone()))).collect()
}

fn is_ours(name: &str, slot: &Slot) -> bool {
    slot.is_lasting && name.starts_with(PREFIX)
}

/// Whether the server is in recovery, and its slots. The server answers from its memory, whatever its disk does.
async fn look(session: &Session) -> Result<(bool, BTreeMap<String, Slot>)> {
    let question = "select pg_is_in_recovery(), s.slot_name::text, s.slot_type = 'physical' and not s.temporary, \
        s.active_pid, s.restart_lsn::text, coalesce(s.wal_status = 'lost', false) \
        from (select) one left join pg_replication_slots s on true";
    let doing = "ask the server for its replication slots";
    let rows = session.client().query_typed(question, &[]).await.map_err(EngineError::sql(doing))?;
    let first = rows.first().ok_or(EngineError::NoAnswer { what: doing, after: Duration::ZERO })?;
    let in_recovery = first.get(0);
    let slots = rows.iter().filter_map(|row| {
        let name = row.get::<_, Option<String>>(1)?;
        let (is_lasting, used_by) = (row.get(2), row.get(3));
        let from = row.get::<_, Option<String>>(4).and_then(|lsn| lsn.parse().ok());
        Some((name, Slot { is_lasting, used_by, from, is_lost: row.get(5) }))
    });
    Ok((in_recovery, slots.collect()))
}

/// Does these steps, one after the other; one that fails does not stop the others. Brings the first error.
async fn take(session: &Session, steps: &[Step]) -> Result<()> {
    let mut outcome = Ok(());
    for step in steps {
        // A slot's name holds nothing that SQL would have to be kept from.
        let done = match step {
            Step::Drop(name) => drop_slot(session, name, "").await,
            // It may have been promoted since it was looked at.
            Step::Clear(name) => drop_slot(session, name, " where pg_is_in_recovery()").await,
            Step::Make(name) => make_slot(session, name).await,
            Step::Advance(name, to) => {
                let statement = format!("select pg_replication_slot_advance('{name}', '{to}')");
                session.execute("move a replication slot on", &statement).await
            }
            Step::Renew(name) => match drop_slot(session, name, "").await {
                Ok(()) => make_slot(session, name).await,
                error => error,
            },
        };
        let overtaken = |error: &EngineError| error.code().is_some_and(|code| OVERTAKEN.contains(&code));
        outcome = outcome.and(done.or_else(|error| if overtaken(&error) { Ok(()) } else { Err(error) }));
    }
    outcome
}

async fn drop_slot(session: &Session, name: &str, condition: &str) -> Result<()> {
    let statement = format!("select pg_drop_replication_slot('{name}'){condition}");
    session.execute("drop a replication slot", &statement).await
}

/// Makes it so that it keeps WAL from now on, and not only once it was read from.
async fn make_slot(session: &Session, name: &str) -> Result<()> {
    session
        .execute("make a replication slot", &format!("select pg_create_physical_replication_slot('{name}', true)"))
        .await
}

/// Makes and drops what the running server should have and should not. Brings the slots of others that hold WAL where nobody
/// reads from them, of a standby.
///
/// The question goes over the connection that there is; the steps, which write, over one of their own: a disk that hangs
/// keeps nobody else from asking.
async fn tend(core: &Core) -> Result<Vec<String>> {
    let (in_recovery, present) = look(&*core.session().await?).await?;
    let steps = match in_recovery {
        true => of_standby(&present, &of_others(core)),
        false => of_primary(&present, &wanted(core), &follow(core)),
    };
    act(core, &steps).await?;
    let held = |slot: &Slot| in_recovery && slot.used_by.is_none() && slot.from.is_some();
    let outsiders = of_outsiders(core);
    let is_others = |name: &String, slot: &Slot| !is_ours(name, slot) && !outsiders.contains(name);
    let others = present.into_iter().filter(|(name, slot)| is_others(name, slot) && held(slot));
    Ok(others.map(|(name, _)| name).collect())
}

async fn act(core: &Core, steps: &[Step]) -> Result<()> {
    if !steps.is_empty() {
        let session = Session::open(&core.layout, core.postgresql(), core.postgresql().probe_timeout).await?;
        take(&session, steps).await?;
        tell(core, steps);
    }
    Ok(())
}

/// Makes a primary's slots in a standby that becomes one, beside its promotion, because each takes the disk a while. What
/// this does not come to is made, or said, when recovery has ended; where it does not end, the next look clears them away.
pub fn make_ahead(core: &Arc<Core>) {
    let core = core.clone();
    tokio::spawn(async move {
        let made = async {
            let (_, present) = look(&*core.session().await?).await?;
            act(&core, &of_primary(&present, &wanted(&core), &[])).await
        };
        let _ = tokio::time::timeout(core.postgresql().probe_timeout, made).await;
    });
}

/// The slots of readers that are no nodes.
fn of_outsiders(core: &Core) -> BTreeSet<String> {
    core.postgresql().outsider_slots.iter().cloned().collect()
}

/// What a standby has slots for: the nodes that follow it, and outsiders.
fn of_others(core: &Core) -> BTreeSet<String> {
    followers(core).into_iter().chain(of_outsiders(core)).collect()
}

/// The slots of all other database nodes, and of outsiders.
fn wanted(core: &Core) -> BTreeSet<String> {
    let others = access::database_nodes(&core.config).filter(|(name, _)| **name != core.config.node);
    others.map(|(name, _)| slot_of(name)).chain(of_outsiders(core)).collect()
}

/// The slots of the nodes that follow this one where it is a standby.
fn followers(core: &Core) -> BTreeSet<String> {
    let here = format!("{}", core.config.node);
    follows(core).filter(|(_, followed)| followed.as_str() == here).map(|(node, _)| slot_of(node)).collect()
}

/// Of each node that follows another: its slot, and that one's.
fn follow(core: &Core) -> Vec<(String, String)> {
    follows(core).map(|(node, followed)| (slot_of(node), slot_of(followed))).collect()
}

fn follows(core: &Core) -> impl Iterator<Item = (&NodeName, &NodeName)> {
    let members = core.config.services.get(&core.service).into_iter().flat_map(|service| &service.members);
    members.filter_map(|(node, member)| Some((node, member.follow.as_ref()?)))
}

fn tell(core: &Core, steps: &[Step]) {
    let service = &core.service;
    for step in steps {
        match step {
            Step::Drop(slot) => {
                tracing::info!(%service, slot, "dropped the replication slot of a node that is none any more")
            }
            Step::Clear(slot) => tracing::info!(%service, slot, "dropped a replication slot of a former primary"),
            Step::Make(slot) => tracing::info!(%service, slot, "made a replication slot"),
            Step::Advance(slot, to) => tracing::debug!(%service, slot, %to, "moved a replication slot on"),
            Step::Renew(slot) => tracing::warn!(
                %service, slot,
                "a replication slot was past max_slot_wal_keep_size and is made anew: who reads from it has a gap (a node is copied \
                 anew), unless it has the WAL"
            ),
        }
    }
}

/// Does now what is due. What fails is said, and tried again with the next look: nobody is kept from anything by it.
pub async fn tend_now(core: &Core) {
    let deadline = core.postgresql().probe_timeout;
    let tended = tokio::time::timeout(deadline, tend(core)).await;
    let late = EngineError::NoAnswer { what: "the server, asked for its replication slots,", after: deadline };
    if let Err(error) = tended.unwrap_or(Err(late)) {
        tracing::warn!(service = %core.service, %error, "the replication slots are not as they should be yet");
    }
}

/// Looks after the slots of one postmaster's server. Ends when dropped.
pub struct Upkeep(tokio::task::JoinHandle<()>);

impl Upkeep {
    pub fn start(core: Arc<Core>) -> Self {
        Upkeep(tokio::spawn(upkeep(core)))
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn upkeep(core: Arc<Core>) {
    let service = &core.service;
    let (mut said, mut failure) = (BTreeSet::new(), None);
    let mut along = Along::default();
    loop {
        along.look(&core).await;
        match tend(&core).await {
            Ok(others) => {
                failure = None;
                for slot in others.into_iter().filter(|slot| said.insert(slot.clone())) {
                    tracing::warn!(
                        %service, slot,
                        "this standby has a replication slot that is not regent's: it holds WAL here, and nobody reads from it"
                    );
                }
            }
            // Said once: it is looked at again and again.
            Err(error) => {
                let error = error.to_string();
                if failure.as_ref() != Some(&error) {
                    tracing::warn!(%service, error, "the replication slots are not as they should be yet");
                    failure = Some(error);
                }
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Moves the slots of outsiders along on a standby, with one look of so many, because each costs the upstream a login.
#[derive(Default)]
struct Along {
    looks: u32,
    said: BTreeSet<String>,
    failure: Option<String>,
}

impl Along {
    async fn look(&mut self, core: &Arc<Core>) {
        self.looks += 1;
        let follows = core.seen.borrow().observation.streams_from.clone();
        let (Some(follows), service) = (follows, &core.service) else { return };
        if core.postgresql().outsider_slots.is_empty() || !self.looks.is_multiple_of(ALONG) {
            return;
        }
        match outsiders::advance(core, &follows).await {
            Ok(gaps) => {
                self.failure = None;
                for gap in gaps.into_iter().filter(|gap| self.said.insert(gap.slot.clone())) {
                    let outsiders::Gap { slot, here, at_primary } = gap;
                    tracing::warn!(
                        %service, slot, %here, %at_primary,
                        "the slot here holds less than the primary's: should this node be promoted before its reader has come \
                         past it, the reader has a gap"
                    );
                }
            }
            Err(error) => {
                let error = error.to_string();
                if self.failure.as_ref() != Some(&error) {
                    tracing::warn!(%service, error, "the slots of outsiders are not moved along: they hold more than they need");
                    self.failure = Some(error);
                }
            }
        }
    }
}

/// Has the upstream keep WAL for a copy on this node, from before the copy begins; brings the slot. Where it is in use for
/// longer than a lost connection lasts, the copy is refused.
pub async fn ready_at(upstream: &Session, node: &NodeName) -> Result<String> {
    let name = slot_of(node);
    let mut reader = 0;
    for _ in 0..POLLS {
        let (_, present) = look(upstream).await?;
        let step = match present.get(&name) {
            Some(Slot { is_lasting: false, .. }) => {
                let why = format!("its slot {name} is there and not a physical one; drop it at the primary");
                return Err(EngineError::Refused { action: "copy", why });
            }
            Some(Slot { used_by: Some(pid), .. }) => {
                reader = *pid;
                tokio::time::sleep(POLL).await;
                continue;
            }
            Some(slot) if !slot.is_spent() => return Ok(name),
            Some(_) => Step::Renew(name.clone()),
            None => Step::Make(name.clone()),
        };
        take(upstream, &[step]).await?;
    }
    let why = format!(
        "process {reader} of the primary reads from its slot {name}: the end of a lost connection, or another copy of {node}"
    );
    Err(EngineError::Refused { action: "copy", why })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(node: &str) -> String {
        slot_of(&node.parse().expect("a name"))
    }

    #[test]
    fn every_node_has_a_slot_of_its_own_whose_name_postgresql_takes() {
        assert_eq!(slot("db1"), "regent_db1");
        let long = "a".repeat(56);
        assert_eq!(slot(&long), format!("regent_{long}"), "as long as one may be");
        let dashed = slot("db-1");
        let longer = "a".repeat(63);
        let nearly = format!("{}b", &longer[1..]);
        let names = ["db1", "DB1", "db_1", "db-1", "db.1", "Db-1", &dashed["regent_".len()..], &long, &longer, &nearly];
        let slots: BTreeSet<String> = names.iter().map(|name| slot(name)).collect();
        assert_eq!(slots.len(), names.len(), "{slots:?}");
        for slot in slots {
            let is_legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(slot.len() <= 63 && slot.starts_with("regent_") && slot.chars().all(is_legal), "{slot}");
        }
    }

    const IDLE: Slot = Slot { is_lasting: true, used_by: None, from: Some(Lsn(0x1000)), is_lost: false };

    fn present(slots: &[(&str, Slot)]) -> BTreeMap<String, Slot> {
        slots.iter().map(|(name, slot)| ((*name).to_owned(), slot.clone())).collect()
    }

    fn wants(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_primary_makes_what_is_missing_and_renews_what_was_lost() {
        let lost = Slot { from: None, is_lost: true, ..IDLE };
        let never_reserved = Slot { from: None, ..IDLE };
        let there = present(&[("regent_b", IDLE), ("regent_c", lost), ("regent_d", never_reserved)]);
        let steps = of_primary(&there, &wants(&["regent_b", "regent_c", "regent_d", "regent_e"]), &[]);
        let name = |name: &str| name.to_owned();
        assert_eq!(steps, [Step::Renew(name("regent_c")), Step::Renew(name("regent_d")), Step::Make(name("regent_e"))]);
    }

    #[test]
    fn only_slots_of_regents_that_nobody_reads_from_are_dropped() {
        let used = Slot { used_by: Some(7), ..IDLE };
        let logical = Slot { is_lasting: false, ..IDLE };
        let there = present(&[
            ("backup", IDLE),
            ("regent_gone", IDLE),
            ("regent_logical", logical),
            ("regent_used", Slot { is_lost: true, ..used }),
            ("regent_wanted", IDLE),
        ]);
        let gone = "regent_gone".to_owned();
        assert_eq!(of_primary(&there, &wants(&["regent_wanted", "regent_logical"]), &[]), [Step::Drop(gone.clone())]);
        assert_eq!(of_standby(&there, &wants(&[])), [Step::Clear(gone), Step::Clear("regent_wanted".to_owned())]);
    }

    #[test]
    fn a_standby_keeps_what_those_need_who_follow_it_and_the_primary_no_more_than_that_for_them() {
        let ahead = Slot { used_by: Some(7), from: Some(Lsn(0x3000)), ..IDLE };
        let there = present(&[("regent_db2", ahead), ("regent_db3", IDLE)]);
        let follow = [("regent_db3".to_owned(), "regent_db2".to_owned())];
        let wanted = wants(&["regent_db2", "regent_db3"]);
        assert_eq!(of_primary(&there, &wanted, &follow), [Step::Advance("regent_db3".to_owned(), Lsn(0x3000))]);
        // It follows the primary for now.
        let reads = present(&[("regent_db2", IDLE), ("regent_db3", Slot { used_by: Some(8), ..IDLE })]);
        assert_eq!(of_primary(&reads, &wanted, &follow), []);
        let db3 = "regent_db3".to_owned();
        assert_eq!(of_standby(&present(&[]), &wants(&["regent_db3"])), [Step::Make(db3)]);
        assert_eq!(of_standby(&there, &wants(&["regent_db3"])), []);
    }

    #[test]
    fn slots_of_outsiders_are_made_and_renewed_on_every_node_and_dropped_on_none() {
        let lost = Slot { from: None, is_lost: true, ..IDLE };
        let there = present(&[("barman", lost), ("former", IDLE), ("regent_b", IDLE)]);
        let renew = || Step::Renew("barman".to_owned());
        let make = || Step::Make("receivewal".to_owned());
        let outsiders = wants(&["barman", "receivewal"]);
        assert_eq!(of_standby(&there, &outsiders), [Step::Clear("regent_b".to_owned()), renew(), make()]);
        let wanted = wants(&["barman", "receivewal", "regent_b"]);
        assert_eq!(of_primary(&there, &wanted, &[]), [renew(), make()]);
    }
}
