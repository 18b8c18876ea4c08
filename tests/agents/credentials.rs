//! `fence_regent_credentials` with a real PostgreSQL, and clients on the fenced host.

use crate::hosts::{Hosts, NODE, NODE_V6, SURVIVOR};
use crate::postgres::Postgres;
use crate::{CREDENTIALS, Said, call, eventually, is_root};
use std::os::unix::fs::MetadataExt;

fn options(postgres: &Postgres, fence: u32) -> String {
    format!(
        "nodename=db1\nfence_id={fence}\naddresses={NODE},{NODE_V6}\nhba_file={}\nsocket_dir={}\n\
         replication_role=repl_db1\n",
        postgres.hba().display(),
        postgres.socket_dir()
    )
}

fn ask(postgres: &Postgres, action: &str, fence: u32) -> Said {
    call(CREDENTIALS, &[], &format!("action={action}\n{}", options(postgres, fence)))
}

fn login(hosts: &Hosts) -> Said {
    let to = format!("host={SURVIVOR} user=app dbname=postgres connect_timeout=3");
    hosts.call(&hosts.node, &["psql", "-XAtc", "SELECT 1", &to], "")
}

fn replication(hosts: &Hosts) -> Said {
    let to = format!("host={SURVIVOR} user=repl_db1 replication=1 connect_timeout=3");
    hosts.call(&hosts.node, &["psql", "-XAtc", "IDENTIFY_SYSTEM", &to], "")
}

#[test]
fn logins_and_replication_that_worked_fail_after_off_and_work_after_on() {
    if !is_root() {
        return;
    }
    let hosts = Hosts::start();
    let postgres = Postgres::start(&hosts);
    let before = std::fs::read(postgres.hba()).expect("the file");
    let about = std::fs::metadata(postgres.hba()).expect("the file");
    assert_eq!((login(&hosts).status, replication(&hosts).status), (0, 0));
    assert_eq!(ask(&postgres, "status", 7).status, 0);
    assert_eq!(ask(&postgres, "monitor", 7).status, 0);
    let wal = tempfile::tempdir().expect("a folder");
    let (to, wal) = (format!("host={SURVIVOR} user=repl_db1"), wal.path().display().to_string());
    let mut receiver =
        hosts.start_in(&hosts.node, &["/usr/lib/postgresql/15/bin/pg_receivewal", "-n", "-d", &to, "-D", &wal]);
    let to = format!("host={SURVIVOR} user=app dbname=postgres");
    let mut session = hosts.start_in(&hosts.node, &["psql", "-Xc", "SELECT pg_sleep(600)", &to]);
    let count = format!("SELECT count(*) FROM pg_stat_activity WHERE client_addr = '{NODE}'");
    eventually("both connections are there", || (postgres.sql(&count) == "2").then_some(()));
    eventually("WAL is sent", || (postgres.sql("SELECT count(*) FROM pg_stat_replication") == "1").then_some(()));

    let off = ask(&postgres, "off", 7);
    assert_eq!(off.status, 0, "{off:?}");
    assert!(off.text.contains("2 connections ended") && off.text.contains("repl_db1 is NOLOGIN now"), "{off:?}");
    assert_eq!(postgres.sql(&count), "0", "no connection is left when off has returned");
    assert!(!receiver.wait().expect("ended").success() && !session.wait().expect("ended").success());
    let refused = login(&hosts);
    assert!(refused.status != 0 && refused.text.contains("pg_hba.conf rejects connection"), "{refused:?}");
    let refused = replication(&hosts);
    assert!(refused.status != 0 && refused.text.contains("rejects replication connection"), "{refused:?}");
    assert_eq!(postgres.sql("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'repl_db1'"), "f");
    assert_eq!(ask(&postgres, "status", 7).status, 2);
    let now = std::fs::metadata(postgres.hba()).expect("the file");
    assert_eq!((now.mode(), now.uid(), now.gid()), (about.mode(), about.uid(), about.gid()));
    assert_eq!(ask(&postgres, "off", 7).status, 0, "twice is once");

    let on = ask(&postgres, "on", 7);
    assert_eq!(on.status, 0, "{on:?}");
    assert_eq!((login(&hosts).status, replication(&hosts).status), (0, 0));
    assert_eq!(std::fs::read(postgres.hba()).expect("the file"), before, "not a byte differs");
    assert_eq!((ask(&postgres, "status", 7).status, ask(&postgres, "on", 7).status), (0, 0));
}

#[test]
fn the_login_returns_only_with_the_last_fence_of_the_node() {
    if !is_root() {
        return;
    }
    let hosts = Hosts::start();
    let postgres = Postgres::start(&hosts);
    // A commit that waits for a standby would wait for ever: the agent must not.
    postgres.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    postgres.sql("SELECT pg_reload_conf()");
    let can_login = || postgres.sql("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'repl_db1'");
    assert_eq!((ask(&postgres, "off", 1).status, ask(&postgres, "off", 2).status), (0, 0));
    let on = ask(&postgres, "on", 1);
    assert!(on.status == 0 && on.text.contains("fence 2 of this node remains"), "{on:?}");
    assert_eq!(can_login(), "f");
    assert_ne!(login(&hosts).status, 0);
    assert_eq!((ask(&postgres, "on", 2).status, can_login().as_str()), (0, "t"));
    assert_eq!(replication(&hosts).status, 0);
}

#[test]
fn a_standby_rejects_by_its_file_and_leaves_the_role_alone() {
    if !is_root() {
        return;
    }
    let hosts = Hosts::start();
    let mut postgres = Postgres::start(&hosts);
    postgres.stop();
    postgres.becomes_standby();
    postgres.run();
    let off = ask(&postgres, "off", 3);
    assert!(off.status == 0 && off.text.contains("the server is in recovery"), "{off:?}");
    assert_ne!(login(&hosts).status, 0);
    assert_eq!((ask(&postgres, "on", 3).status, login(&hosts).status), (0, 0));
}

#[test]
fn a_stopped_server_gets_the_lines_before_it_starts() {
    if !is_root() {
        return;
    }
    let hosts = Hosts::start();
    let mut postgres = Postgres::start(&hosts);
    postgres.stop();
    let off = ask(&postgres, "off", 4);
    assert!(off.status == 0 && off.text.contains("no server runs"), "{off:?}");
    postgres.run();
    assert_ne!(login(&hosts).status, 0);
}

#[test]
fn a_server_that_cannot_be_used_is_a_failure_and_the_file_is_read_all_the_same() {
    if !is_root() {
        return;
    }
    let hosts = Hosts::start();
    let postgres = Postgres::start(&hosts);
    let stranger = format!("action=off\nsuperuser=app\n{}", options(&postgres, 5));
    let off = call(CREDENTIALS, &[], &stranger);
    assert!(off.status == 1 && off.text.contains("1 of 1 parts failed"), "{off:?}");
    eventually("the reject lines are in force", || (login(&hosts).status != 0).then_some(()));
}

#[test]
fn without_any_file_only_the_operators_command_applies() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().display().to_string();
    let base = format!("nodename=db1\nfence_id=9\naddresses=192.0.2.1\nhba_file={path}/none\nsocket_dir={path}\n");
    let command = format!("echo $NODE $FENCE_ID $ACTION >> {path}/log");
    let both = format!("{base}revoke={command}\nrestore={command}\n");
    for action in ["off", "on"] {
        let done = call(CREDENTIALS, &[], &format!("action={action}\n{both}"));
        assert!(done.status == 0 && done.text.contains("there is no such file"), "{done:?}");
    }
    assert_eq!(std::fs::read_to_string(format!("{path}/log")).expect("a log"), "db1 9 off\ndb1 9 on\n");
    let failing = call(CREDENTIALS, &[], &format!("action=off\n{base}revoke=echo not today; exit 4\n"));
    assert!(failing.status == 1 && failing.text.contains("not today"), "{failing:?}");
    let slow = call(CREDENTIALS, &[], &format!("action=off\n{base}revoke=sleep 60\ncommand_timeout=0.2\n"));
    assert!(slow.status == 1 && slow.text.contains("did not end within 200ms"), "{slow:?}");
    assert_eq!(call(CREDENTIALS, &[], &format!("action=status\n{base}")).status, 0, "nothing is revoked");
}

/// As the database's user would do it, whose directory the access file and the revocation list lie in.
#[test]
fn a_link_in_the_place_of_a_file_leads_no_further_than_its_owner_could_go() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
    if !is_root() {
        return;
    }
    const NOBODY: u32 = 65534;
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("mine");
    let [secret, new, theirs] = ["secret", "new", "theirs"].map(|name| folder.path().join(name));
    std::fs::write(&secret, "mine\n-----BEGIN X509 CRL-----\n").expect("written");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).expect("mine");
    let list = folder.path().join("list");
    std::fs::write(&list, "-----BEGIN X509 CRL-----\n").expect("written");
    std::fs::create_dir(&theirs).expect("made");
    let path = theirs.display().to_string();
    let before = std::fs::read(&secret).expect("readable");
    let own = |name: &str, text: &str| {
        std::fs::write(theirs.join(name), text).expect("written");
        chown(theirs.join(name), Some(NOBODY), Some(NOBODY)).expect("root");
    };
    let link = |name: &str, target: &std::path::Path| symlink(target, theirs.join(name)).expect("linked");
    let ask = |action: &str| {
        let base = format!("nodename=db1\nfence_id=9\naddresses=192.0.2.1\nsocket_dir={path}\n");
        let lists = format!("crl_source={}\ncrl_file={path}/crl.pem\n", list.display());
        call(CREDENTIALS, &[], &format!("action={action}\n{base}hba_file={path}/pg_hba.conf\n{lists}"))
    };
    chown(&theirs, Some(NOBODY), Some(NOBODY)).expect("root");
    // Each name in turn, beside honest ones.
    for (name, target) in [
        ("pg_hba.conf", &secret),
        ("pg_hba.conf.lock", &new),
        ("pg_hba.conf.regent-new", &secret),
        ("crl.pem", &secret),
        ("crl.pem.fence-9", &secret),
        ("crl.pem.unfenced", &new),
        ("crl.pem.unfenced.regent-new", &secret),
        ("crl.pem.regent-new", &secret),
    ] {
        for entry in std::fs::read_dir(&theirs).expect("readable").flatten() {
            std::fs::remove_file(entry.path()).expect("removed");
        }
        own("pg_hba.conf", "host all all all scram-sha-256\n");
        own("crl.pem", "-----BEGIN X509 CRL-----\n");
        let _ = std::fs::remove_file(theirs.join(name));
        link(name, target);
        let (off, on) = (ask("off"), ask("on"));
        let about = std::fs::metadata(&secret).expect("there");
        assert_eq!((about.uid(), about.mode() & 0o7777), (0, 0o600), "{name}: {off:?} {on:?}");
        assert_eq!(std::fs::read(&secret).expect("readable"), before, "{name}: {off:?} {on:?}");
        assert!(!new.exists(), "{name}: {off:?} {on:?}");
        for entry in std::fs::read_dir(&theirs).expect("readable").flatten() {
            let text = std::fs::symlink_metadata(entry.path()).is_ok_and(|about| about.is_file());
            let leaks =
                text && String::from_utf8_lossy(&std::fs::read(entry.path()).expect("readable")).contains("mine");
            assert!(!leaks, "{name}: {} holds the secret", entry.path().display());
        }
    }
}

#[test]
fn a_revocation_list_is_exchanged_and_put_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().display().to_string();
    let list = |name: &str| {
        let text = format!("-----BEGIN X509 CRL-----\n{name}\n-----END X509 CRL-----\n");
        std::fs::write(format!("{path}/{name}"), &text).expect("written");
        text
    };
    let (base, one, two) = (list("crl.pem"), list("one"), list("two"));
    let ask = |action: &str, fence: u32, source: &str| {
        let input =
            format!("fence_id={fence}\naddresses=192.0.2.1\ncrl_file={path}/crl.pem\ncrl_source={path}/{source}\n");
        call(CREDENTIALS, &[], &format!("action={action}\n{input}"))
    };
    let now = || std::fs::read_to_string(format!("{path}/crl.pem")).expect("the list");
    assert_eq!((ask("off", 1, "one").status, now()), (0, one.clone()));
    assert_eq!((ask("off", 1, "one").status, now()), (0, one.clone()));
    assert_eq!((ask("off", 2, "two").status, now()), (0, two.clone()));
    assert_eq!(ask("status", 1, "one").status, 2);
    assert_eq!((ask("on", 2, "two").status, now()), (0, one));
    assert_eq!((ask("on", 1, "one").status, now()), (0, base.clone()));
    assert_eq!(ask("status", 1, "one").status, 0);
    assert_eq!((ask("on", 1, "one").status, now()), (0, base));
    std::fs::write(format!("{path}/one"), "rubbish").expect("written");
    assert!(ask("off", 1, "one").text.contains("no list in PEM form"));
}

/// The whole way: what regent hands the agent for a host with two services, and what the agent does with it.
#[test]
fn every_service_of_a_host_is_revoked_in_one_run() {
    use regent::types::{AgentAction, FenceId};
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().display().to_string();
    let example = include_str!("../../config/two-databases-and-witness.toml");
    let service = |name: &str, port: u16| {
        format!(
            "\n[service.{name}]\nengine = \"postgresql\"\n[service.{name}.postgresql]\nport = {port}\n\
             data_dir = \"/var/lib/{name}\"\nbin_dir = \"/usr/lib/postgresql/15/bin\"\n"
        )
    };
    let before = example.split("[service.").next().expect("there is always a first part");
    let text = format!("run_dir = \"{path}\"\n{before}{}{}", service("billing", 5433), service("orders", 5432));
    let config = regent::config::Config::parse(&text, "regent.toml", None, "db2").expect("a valid file");
    let mine = "host all all all scram-sha-256\n";
    let files = ["billing", "orders"].map(|name| {
        let folder = folder.path().join(name);
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::write(folder.join("pg_hba.conf"), mine).expect("written");
        folder.join("pg_hba.conf")
    });
    let (agent, target) = ("credentials".parse().expect("valid"), "db1".parse().expect("valid"));
    let ask = |action: AgentAction, word: &str| {
        let order = regent::node::agent_order(&config, &agent, action, &target, Some(FenceId(7)));
        let options = order.expect("the example configures it").options;
        let lines = options.iter().map(|(name, value)| format!("{}={value}\n", name.trim_start_matches("offer:")));
        call(CREDENTIALS, &[], &format!("action={word}\nnodename=db1\n{}", lines.collect::<String>()))
    };
    for _ in 0..2 {
        let off = ask(AgentAction::Off, "off");
        assert_eq!(off.status, 0, "{off:?}");
        for file in &files {
            let text = std::fs::read_to_string(file).expect("the file");
            assert_eq!(text.matches("# regent fence 7 begin").count(), 1, "{}: {text}", file.display());
            assert!(text.contains("host replication all 10.0.1.11/32 reject") && text.ends_with(mine), "{text}");
        }
    }
    assert_eq!(ask(AgentAction::On, "on").status, 0);
    for file in &files {
        assert_eq!(std::fs::read_to_string(file).expect("the file"), mine, "{}", file.display());
    }
}
