//! `init` and `list` on real files. They lie under /var/tmp, because a tmpfs may not know O_DIRECT.

use super::*;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/var/tmp").unwrap()
}

fn names(list: &[&str]) -> Vec<NodeName> {
    list.iter().map(|name| name.parse().unwrap()).collect()
}

fn orders() -> ClusterId {
    ClusterId("orders".into())
}

#[test]
fn a_new_disk_shows_its_header_and_empty_slots() {
    let folder = folder();
    let path = folder.path().join("disk");
    let report = init(&path, &orders(), &names(&["db1", "db2", "w1"]), 1, false).unwrap();
    assert_eq!(report.header.generation, 1);
    assert_eq!(report.slots.len(), 4);
    assert!(report.slots.iter().all(|slot| slot.content == SlotContent::Empty));
    assert_eq!(list(&path, None).unwrap(), report);
    let text = report.to_string();
    assert!(text.contains("cluster orders") && text.contains("db2") && text.contains("(free)"), "{text}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["header"]["disk"].as_str().unwrap().len(), 32);
}

#[test]
fn a_disk_of_a_cluster_is_made_anew_only_by_force() {
    let folder = folder();
    let path = folder.path().join("disk");
    let first = init(&path, &orders(), &names(&["db1"]), 0, false).unwrap();
    let refused = init(&path, &orders(), &names(&["db1"]), 0, false).unwrap_err();
    assert!(matches!(&refused, DiskError::Initialised { cluster, .. } if *cluster == orders()), "{refused}");
    let again = init(&path, &orders(), &names(&["db1", "db2"]), 0, true).unwrap();
    assert_eq!((again.header.disk, again.header.generation), (first.header.disk, 2));
    let other = init(&path, &ClusterId("staging".into()), &names(&["db1"]), 0, true).unwrap();
    assert_ne!(other.header.disk, first.header.disk);
}

#[test]
fn what_is_not_ours_is_not_overwritten() {
    let folder = folder();
    let mut ext4 = vec![0; 64 * 1024];
    ext4[0x438..0x43a].copy_from_slice(&[0x53, 0xef]);
    let mut far = vec![0; 128 * 1024];
    far[100_000] = 1;
    for (name, content, said) in [
        ("ext4", ext4, "ext4"),
        ("far", far, "did not write"),
        ("note", b"remember the milk".to_vec(), "did not write"),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, &content).unwrap();
        let refused = init(&path, &orders(), &names(&["db1"]), 0, false).unwrap_err();
        assert!(refused.to_string().contains(said), "{refused}");
        assert!(refused.to_string().contains("--force"), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), content, "{name} was touched");
        init(&path, &orders(), &names(&["db1"]), 0, true).unwrap();
    }
    let blank = folder.path().join("blank");
    std::fs::write(&blank, vec![0; 256 * 1024]).unwrap();
    init(&blank, &orders(), &names(&["db1"]), 0, false).unwrap();
}

#[test]
fn impossible_disks_are_refused_with_the_reason() {
    let folder = folder();
    let path = folder.path().join("disk");
    for bad in [vec![], names(&["db1", "db1"])] {
        assert!(matches!(init(&path, &orders(), &bad, 0, false), Err(DiskError::Slots { .. })));
    }
    assert!(matches!(init(&path, &orders(), &names(&["db1"]), 32, false), Err(DiskError::Slots { slots: 33 })));
    assert!(matches!(
        init(&path, &ClusterId(String::new()), &names(&["db1"]), 0, false),
        Err(DiskError::Cluster { .. })
    ));
    assert!(!path.exists(), "a refused disk was created");
    std::fs::write(&path, vec![0; 8192]).unwrap();
    let error = list(&path, None).unwrap_err();
    assert!(error.to_string().contains("disk init"), "{error}");
}
