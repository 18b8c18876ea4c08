//! A standby that is made on real disks: links, volumes of its own, too little room, a copy that lost something. What lies at
//! the same path on every host (tablespaces) needs hosts: see the lab.

use crate::cluster::{Cluster, LADDER, bin_dir, possible};
use regent::types::{DbAction, DbDone, Epoch};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

fn postgres() -> (Option<u32>, Option<u32>) {
    let user = nix::unistd::User::from_name("postgres").expect("readable").expect("it is installed");
    (Some(user.uid.as_raw()), Some(user.gid.as_raw()))
}

/// A folder of the database's user.
fn folder(path: &Path) {
    fs::create_dir_all(path).expect("made");
    let (uid, gid) = postgres();
    chown(path, uid, gid).expect("root");
}

/// A volume in memory, below a cluster's folder: the cluster unmounts it when its processes are gone.
pub struct Volume(PathBuf);

impl Volume {
    pub fn mount(path: &Path, mebibytes: u32) -> Volume {
        fs::create_dir_all(path).expect("made");
        let size = format!("size={mebibytes}m,mode=755");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).status();
        assert!(mounted.expect("mount runs").success());
        let (uid, gid) = postgres();
        chown(path, uid, gid).expect("root");
        Volume(path.to_owned())
    }

    fn unmount(self) {
        assert!(Command::new("umount").arg("-l").arg(self.0).status().expect("umount runs").success());
    }

    fn grow(&self, mebibytes: u32) {
        let size = format!("remount,size={mebibytes}m");
        let mounted = Command::new("mount").args(["-o", &size]).arg(&self.0).status();
        assert!(mounted.expect("mount runs").success());
    }
}

fn device(path: &Path) -> u64 {
    fs::metadata(path).expect("there").dev()
}

/// A node that comes back after it lost its database: what was done.
async fn copied_again(cluster: &Cluster, name: &str) -> String {
    let node = cluster.node(name);
    node.done(DbAction::Stop { ladder: LADDER }).await;
    fs::write(cluster.path().join(name).join(".regent-main.unstartable"), "a rewind\n").expect("written");
    let DbDone::Rejoined { how, .. } = cluster.follow(name, "db1").await else { panic!("it did not rejoin") };
    assert!(how.contains("cloned"), "{how}");
    how
}

#[tokio::test(flavor = "multi_thread")]
async fn wal_on_a_volume_of_its_own_stays_there_through_every_copy() {
    if !possible() {
        return;
    }
    let wal = |data_dir: &Path| data_dir.with_file_name("wal");
    // db1's in a directory on the volume, db2's at its root, db3's in a directory beside its own.
    let mut cluster = Cluster::with(&["db1", "db2", "db3"], |postgresql| {
        let place = wal(&postgresql.data_dir);
        let is_first = postgresql.data_dir.parent().is_some_and(|p| p.ends_with("db1"));
        postgresql.wal_dir = Some(if is_first { place.join("main") } else { place });
    });
    let _volumes = ["db1", "db2"].map(|name| Volume::mount(&cluster.path().join(name).join("wal"), 400));
    for name in ["db1", "db2", "db3"] {
        folder(&cluster.path().join(name));
        cluster.engine(name);
    }
    // What is not the database's stays: a new one is refused, again and again, and a copy leaves it alone.
    let others = ["db1/wal/main/others", "db2/wal/others"].map(|path| cluster.path().join(path));
    folder(&cluster.path().join("db1/wal/main"));
    others.iter().for_each(|path| fs::write(path, "mine").expect("written"));
    for _ in 0..2 {
        let refused = cluster.node("db1").fails(DbAction::Initdb).await;
        assert!(refused.contains("is not empty") && others[0].exists(), "{refused}");
    }
    fs::remove_file(&others[0]).expect("removed");
    cluster.create("db1").await;
    for name in ["db2", "db3"] {
        cluster.follow(name, "db1").await;
        cluster.node(name).engine().are_named([].into());
    }
    let lies = |name: &str| {
        let node = cluster.node(name);
        let (linked, place) = (node.postgresql().data_dir.join("pg_wal"), node.postgresql().wal_dir.clone());
        assert_eq!(fs::read_link(&linked).ok(), place, "{name}");
        let segments = fs::read_dir(&linked).expect("there").flatten().map(|entry| entry.file_name());
        assert!(segments.map(|n| n.to_string_lossy().len()).any(|length| length == 24), "{name} has no segment there");
    };
    ["db1", "db2", "db3"].into_iter().for_each(lies);
    for round in 2..4 {
        for name in ["db2", "db3"] {
            copied_again(&cluster, name).await;
            lies(name);
        }
        cluster.node("db1").sql(&format!("insert into orders values ({round})")).await;
        for name in ["db2", "db3"] {
            cluster.node(name).until_ids(&(2..=round).collect::<Vec<_>>()).await;
        }
    }
    assert_eq!(fs::read_to_string(&others[1]).expect("still there"), "mine");
    // One copy is kept, with its WAL, and nothing else is left over.
    let names = |path: &Path| {
        let names =
            fs::read_dir(path).expect("there").flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.collect::<Vec<_>>()
    };
    let beside = names(&cluster.path().join("db3"));
    let kept = |prefix: &str| beside.iter().filter(|name| name.starts_with(prefix)).count();
    assert_eq!((kept("main.replaced-"), kept("wal.replaced-"), kept(".regent-")), (1, 1, 0), "{beside:?}");
    let replaced = beside.iter().find(|name| name.starts_with("main.replaced-")).expect("counted");
    assert!(cluster.path().join("db3").join(replaced).join("pg_wal/archive_status").is_dir(), "it has its own WAL");
    assert!(!names(&cluster.path().join("db2/wal")).iter().any(|name| name.starts_with(".regent")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_behind_a_link_is_copied_to_where_it_leads() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::new(&["db1", "db2"]);
    let _volume = Volume::mount(&cluster.path().join("db2/large"), 400);
    for name in ["db1", "db2"] {
        folder(&cluster.path().join(name));
    }
    let large = cluster.path().join("db2/large");
    folder(&large.join("real"));
    symlink(large.join("real"), cluster.path().join("db2/main")).expect("linked");
    for name in ["db1", "db2"] {
        cluster.engine(name);
    }
    cluster.create("db1").await;
    cluster.follow("db2", "db1").await;
    copied_again(&cluster, "db2").await;
    let data_dir = cluster.node("db2").postgresql().data_dir.clone();
    assert_eq!(fs::read_link(&data_dir).expect("still a link"), large.join("real"));
    assert_eq!(device(&data_dir), device(&large), "it lies on its volume");
    assert!(!cluster.path().join("db2/main.replaced-").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_refused_before_the_first_byte() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::new(&["db1", "db2", "db3"]);
    let _root = Volume::mount(&cluster.path().join("db2/main"), 400);
    let small = Volume::mount(&cluster.path().join("db3"), 16);
    folder(&cluster.path().join("db1"));
    for name in ["db1", "db2", "db3"] {
        cluster.engine(name);
    }
    cluster.create("db1").await;
    let checkpoints = async || cluster.node("db1").checkpoints().await;
    // A new primary writes one of its own, beside everything else.
    while checkpoints().await == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let before = checkpoints().await;
    let upstream = cluster.upstream("db1");
    let refused = cluster.node("db2").refuses(DbAction::Rejoin { upstream: upstream.clone(), order: None }).await;
    assert!(refused.contains("is the root of a volume") && refused.contains("use a directory in it"), "{refused}");
    let made = cluster.node("db2").fails(DbAction::Initdb).await;
    assert!(made.contains("is the root of a volume"), "{made}");
    let refused = cluster.node("db3").refuses(DbAction::Rejoin { upstream: upstream.clone(), order: None }).await;
    assert!(refused.contains("it lacks") && refused.contains("MiB"), "{refused}");
    assert!(!cluster.path().join("db3/.regent-main.clone").exists() && !cluster.path().join("db3/main").exists());
    assert_eq!(checkpoints().await, before, "the primary was asked for a checkpoint");
    // Asked again, this host looks at itself alone, until a person has made room.
    let db1 = cluster.node("db1");
    db1.done(DbAction::Stop { ladder: LADDER }).await;
    let again = cluster.node("db3").refuses(DbAction::Rejoin { upstream: upstream.clone(), order: None }).await;
    assert!(again.contains("it lacks"), "the primary was asked: {again}");
    small.grow(400);
    let unreachable = cluster.node("db3").refuses(DbAction::Rejoin { upstream, order: None }).await;
    assert!(unreachable.contains("connect to the upstream"), "it is noticed at once: {unreachable}");
    db1.lease(1, std::time::Duration::from_secs(3600));
    db1.done(DbAction::StartPrimary { epoch: Epoch(1), known: None }).await;
    cluster.follow("db3", "db1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_lost_something_on_the_way_is_no_standby() {
    if !possible() {
        return;
    }
    let bin = tempfile::Builder::new().prefix("regent-bin-").tempdir_in("/var/tmp").expect("a directory");
    let path = bin.path().to_owned();
    for program in fs::read_dir(bin_dir()).expect("programs").flatten() {
        let place = path.join(program.file_name());
        if program.file_name() == "pg_basebackup" {
            // One block of one file is not what was sent.
            let script = format!(
                "#!/bin/sh\n{0} \"$@\" || exit\nprintf lost | dd of=\"$2/global/1262\" bs=1 seek=100 conv=notrunc 2>/dev/null\n",
                program.path().display()
            );
            fs::write(&place, script).expect("written");
            fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).expect("mine");
        } else {
            symlink(program.path(), place).expect("linked");
        }
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mine");
    let mut cluster = Cluster::with(&["db1", "db2"], |postgresql| postgresql.bin_dir.clone_from(&path));
    for name in ["db1", "db2"] {
        cluster.engine(name);
    }
    cluster.create("db1").await;
    let refused = cluster.node("db2").fails(DbAction::Rejoin { upstream: cluster.upstream("db1"), order: None }).await;
    assert!(refused.contains("pg_verifybackup") && refused.contains("global/1262"), "{refused}");
    let forbidden = cluster.node("db2").fails(DbAction::StartStandby { upstream: None }).await;
    assert!(forbidden.contains("a clone is unfinished"), "{forbidden}");
}

#[tokio::test(flavor = "multi_thread")]
async fn initdb_is_told_what_the_operator_wants() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::with(&["db1"], |postgresql| {
        postgresql.initdb_options =
            ["--locale=C", "--wal-segsize=1", "--allow-group-access"].map(String::from).to_vec();
    });
    cluster.engine("db1");
    cluster.create("db1").await;
    let client = cluster.node("db1").client().await.expect("in");
    let ask = async |question: &str| -> String { client.query_one(question, &[]).await.expect("asked").get(0) };
    assert_eq!(ask("show wal_segment_size").await, "1MB");
    assert_eq!(ask("select datcollate::text from pg_database where datname = 'postgres'").await, "C");
    let mode = fs::metadata(&cluster.node("db1").postgresql().data_dir).expect("there").mode() & 0o777;
    assert_eq!(mode, 0o750, "its group reads it, as a backup program needs it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_is_not_mounted_is_not_filled() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::with(&["db1", "db2"], |postgresql| {
        postgresql.wal_dir = Some(postgresql.data_dir.with_file_name("wal").join("main"));
    });
    // The whole database of db2 lies on one volume, its WAL on another.
    let place = cluster.path().join("db2");
    let data = Volume::mount(&place, 400);
    let wal = Volume::mount(&place.join("wal"), 400);
    fs::create_dir(place.join("regent")).expect("made");
    folder(&cluster.path().join("db1"));
    folder(&cluster.path().join("db1/wal"));
    // What regent keeps of the node is not on that volume.
    let keep = cluster.path().join("keep");
    let config =
        std::sync::Arc::get_mut(&mut cluster.nodes.get_mut("db2").expect("there").config).expect("no engine yet");
    config.data_dir = keep;
    for name in ["db1", "db2"] {
        cluster.engine(name);
    }
    cluster.create("db1").await;
    cluster.follow("db2", "db1").await;
    let upstream = cluster.upstream("db1");
    cluster.node("db2").done(DbAction::Stop { ladder: LADDER }).await;
    wal.unmount();
    let refused = cluster.node("db2").fails(DbAction::StartStandby { upstream: Some(upstream.clone()) }).await;
    assert!(refused.contains("/db2/wal") && refused.contains("is not mounted"), "{refused}");
    fs::write(place.join(".regent-main.unstartable"), "a rewind\n").expect("written");
    let refused = cluster.node("db2").refuses(DbAction::Rejoin { upstream: upstream.clone(), order: None }).await;
    assert!(refused.contains("/db2/wal") && refused.contains("is not mounted"), "{refused}");
    assert_eq!(fs::read_dir(place.join("wal")).expect("there").count(), 0);
    data.unmount();
    for action in [DbAction::Rejoin { upstream, order: None }, DbAction::Initdb] {
        let refused = cluster.node("db2").fails(action).await;
        assert!(refused.contains("/db2 when it last ran") && refused.contains("is not mounted"), "{refused}");
    }
    assert!(!place.join("main").exists());
}

/// Started without it, the server would log an error for every file and miss the tables, and the next note would say that
/// the tablespace had always been beside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_whose_tablespace_is_not_mounted_is_not_started() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::with(&["db1"], |_| {});
    let space = cluster.path().join("db1/space");
    folder(&cluster.path().join("db1"));
    cluster.engine("db1");
    cluster.create("db1").await;
    let db1 = cluster.node("db1");
    let volume = Volume::mount(&space, 100);
    fs::create_dir(cluster.path().join("aside")).expect("made");
    db1.sql(&format!("create tablespace space location '{}'", space.display())).await;
    db1.sql("create table in_space tablespace space as select 1 as id").await;
    db1.done(DbAction::Stop { ladder: LADDER }).await;
    db1.lease(2, Duration::from_secs(3600));
    // Its volume is noted at the next start.
    db1.done(DbAction::StartPrimary { epoch: Epoch(2), known: None }).await;
    db1.done(DbAction::Stop { ladder: LADDER }).await;
    let moved = cluster.path().join("aside");
    let run = |words: &[&str]| assert!(Command::new("mount").args(words).status().expect("mount runs").success());
    run(&["--bind", &space.display().to_string(), &moved.display().to_string()]);
    volume.unmount();
    db1.lease(3, Duration::from_secs(3600));
    let refused = db1.fails(DbAction::StartPrimary { epoch: Epoch(3), known: None }).await;
    assert!(refused.contains("/db1/space") && refused.contains("is not mounted"), "{refused}");
    run(&["--bind", &moved.display().to_string(), &space.display().to_string()]);
    db1.done(DbAction::StartPrimary { epoch: Epoch(3), known: None }).await;
    db1.sql("insert into in_space values (2)").await;
}

/// Two old copies, one of which an incident names, stay through copy after copy; the other makes room for the next.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_that_an_incident_names_is_never_removed() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::with(&["db1", "db2"], |postgresql| {
        postgresql.wal_dir = Some(postgresql.data_dir.with_file_name("wal"));
    });
    for name in ["db1", "db2"] {
        folder(&cluster.path().join(name));
        cluster.engine(name);
    }
    cluster.create("db1").await;
    cluster.follow("db2", "db1").await;
    let db2 = cluster.node("db2");
    let aside = || {
        let names = fs::read_dir(cluster.path().join("db2")).expect("there").flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<_> = names.filter(|name| name.contains(".replaced-")).collect();
        names.sort();
        names
    };
    copied_again(&cluster, "db2").await;
    let first = aside();
    assert_eq!(first.len(), 2, "its directory and its WAL: {first:?}");
    copied_again(&cluster, "db2").await;
    assert_eq!(aside().len(), 4, "what is named is not known yet, so nothing goes");

    let named = cluster.path().join("db2").join(&first[0]).display().to_string();
    db2.engine().are_named([named.clone()].into());
    copied_again(&cluster, "db2").await;
    let after = aside();
    assert_eq!(after.len(), 4, "the named one and the newest, with their WAL: {after:?}");
    assert!(first.iter().all(|name| after.contains(name)), "{after:?}");
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    let listed = loop {
        let listed = db2.engine().kept();
        if listed.len() == 4 && listed.iter().all(|kept| after.iter().any(|name| kept.folder.ends_with(name))) {
            break listed;
        }
        assert!(tokio::time::Instant::now() < until, "{listed:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(listed.iter().all(|kept| kept.bytes > 0 && kept.made.is_some()), "{listed:?}");
    assert_eq!(listed.iter().filter(|kept| kept.named).count(), 2, "{listed:?}");
}

/// Where what is named takes all the room, the copy is refused and says what lies there, each time.
#[tokio::test(flavor = "multi_thread")]
async fn a_volume_without_room_names_the_old_copies_on_it() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::new(&["db1", "db2"]);
    let volume = Volume::mount(&cluster.path().join("db2"), 400);
    folder(&cluster.path().join("db1"));
    for name in ["db1", "db2"] {
        cluster.engine(name);
    }
    cluster.create("db1").await;
    cluster.follow("db2", "db1").await;
    copied_again(&cluster, "db2").await;
    let db2 = cluster.node("db2");
    let old = fs::read_dir(cluster.path().join("db2")).expect("there").flatten().map(|entry| entry.path());
    let old = old.filter(|path| path.to_string_lossy().contains(".replaced-")).collect::<Vec<_>>();
    assert_eq!(old.len(), 1);
    db2.engine().are_named([old[0].display().to_string()].into());
    db2.done(DbAction::Stop { ladder: LADDER }).await;
    fs::write(cluster.path().join("db2/.regent-main.unstartable"), "a rewind\n").expect("written");
    let used = Command::new("du").args(["-sm"]).arg(cluster.path().join("db2")).output().expect("du runs").stdout;
    let used: u32 = String::from_utf8_lossy(&used).split_whitespace().next().expect("a number").parse().expect("one");
    volume.grow(used + 20);
    for _ in 0..2 {
        let upstream = cluster.upstream("db1");
        let refused = db2.fails(DbAction::Rejoin { upstream, order: None }).await;
        assert!(refused.contains("it lacks") && refused.contains(&old[0].display().to_string()), "{refused}");
    }
    assert!(old[0].exists());
    // The incident is dealt with: it makes room by itself.
    db2.engine().are_named([].into());
    cluster.follow("db2", "db1").await;
    assert!(!old[0].exists());
}
