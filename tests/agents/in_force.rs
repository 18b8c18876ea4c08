//! `in-force`: what fences left on a host, found in the kernel, the files and the database, and undone by number alone.

use crate::hosts::{Hosts, NODE, NODE_V6};
use crate::postgres::Postgres;
use crate::runner::wait;
use crate::{CREDENTIALS, FIREWALL, Said, call, eventually, is_root};
use regent::action::fence::Runner;
use regent::action::in_force::look;
use regent::config::{Agent, Config};
use regent::ledger::{Settings, State};
use regent::node::{in_force_orders, undone};
use regent::types::{AgentName, AgentOutcome, FenceId, Standing};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

/// The lines of an answer, without those for people.
fn told(said: &Said) -> Vec<String> {
    said.text.lines().filter(|line| line.starts_with("in-force ")).map(str::to_owned).collect()
}

/// The agent for nftables on the survivor.
fn firewall(hosts: &Hosts, input: &str) -> Said {
    hosts.call(&hosts.survivor, &[FIREWALL], input)
}

fn cut(hosts: &Hosts, fence: u64, node: &str, addresses: &str) {
    let input = format!("action=off\nnodename={node}\nfence_id={fence}\naddresses={addresses}\n");
    let off = firewall(hosts, &input);
    assert_eq!(off.status, 0, "{off:?}");
}

fn chains_in_force(hosts: &Hosts) -> Vec<String> {
    let said = firewall(hosts, "action=in-force\n");
    assert_eq!(said.status, 0, "{said:?}");
    told(&said)
}

fn nft(hosts: &Hosts, rules: &str) {
    let done = hosts.call(&hosts.survivor, &["nft", "-f", "-"], rules);
    assert_eq!(done.status, 0, "{done:?}");
}

#[test]
fn the_firewall_tells_every_fence_and_undoes_each_by_its_number() {
    if !is_root() {
        return;
    }
    let hosts = Hosts::start();
    assert_eq!(chains_in_force(&hosts), [""; 0], "there is not even a table");
    cut(&hosts, 1, "db1", &format!("{NODE},{NODE_V6}"));
    cut(&hosts, 12, "db2", "10.99.1.77");
    let first = "in-force fence=1 node=db1 what=chains fence_1_input (7 rules), fence_1_output (7 rules), \
                 fence_1_forward (14 rules)";
    let second = "in-force fence=12 node=db2 what=chains fence_12_input (3 rules), fence_12_output (3 rules), \
                  fence_12_forward (6 rules)";
    assert_eq!(chains_in_force(&hosts), [first, second]);
    let status = format!("action=status\nfence_id=1\naddresses={NODE},{NODE_V6}\n");
    assert_eq!(firewall(&hosts, &status).status, 2, "the node's name beside the rules changes nothing");
    assert_eq!(firewall(&hosts, "action=on\nfence_id=1\n").status, 0);
    assert_eq!(chains_in_force(&hosts), [second]);
    assert_eq!(firewall(&hosts, "action=on\nfence_id=12\n").status, 0);
    assert_eq!(chains_in_force(&hosts), [""; 0]);
}

#[test]
fn chains_that_are_half_there_are_told_and_undone() {
    if !is_root() {
        return;
    }
    let hosts = Hosts::start();
    // Of fence 3 one chain without a rule, hooked as another version might; of fence 4 one that is not hooked at all.
    nft(
        &hosts,
        "table inet regent_fence {\nchain fence_3_output {\ntype filter hook output priority 0; policy accept;\n}\n\
         chain fence_4_input {\nip saddr 10.99.1.1 drop\n}\nchain mine {\ndrop\n}\nchain fence_05_input {\n}\n}\n",
    );
    cut(&hosts, 6, "two words", NODE);
    assert_eq!(firewall(&hosts, "action=on\nfence_id=3\n").status, 0);
    let left = chains_in_force(&hosts);
    assert_eq!(left.len(), 2, "{left:?}");
    assert_eq!(left[0], "in-force fence=4 node=- what=chains fence_4_input (1 rules)");
    assert!(left[1].starts_with("in-force fence=6 node=- what=chains fence_6_input (3 rules)"), "{left:?}");
    for fence in [4, 6, 3] {
        assert_eq!(firewall(&hosts, &format!("action=on\nfence_id={fence}\n")).status, 0);
    }
    assert_eq!(chains_in_force(&hosts), [""; 0]);
    let table = hosts.call(&hosts.survivor, &["nft", "list", "table", "inet", "regent_fence"], "").text;
    assert!(table.contains("chain mine") && table.contains("chain fence_05_input"), "not ours: {table}");
}

#[test]
fn a_broken_nft_is_a_failure_and_not_a_host_without_fences() {
    let said = call(FIREWALL, &[], "action=in-force\nnft_path=/nonexistent/nft\n");
    assert_eq!((said.status, told(&said)), (1, Vec::new()), "{said:?}");
}

/// The credentials agent with one database.
fn revoke(postgres: &Postgres, action: &str, more: &str) -> Said {
    let (hba, dir, port) = (postgres.hba().display().to_string(), postgres.socket_dir(), postgres.port);
    call(CREDENTIALS, &[], &format!("action={action}\nhba_file={hba}\nsocket_dir={dir}\nport={port}\n{more}"))
}

/// As regent asks for the `off` of db1.
fn fence(postgres: &Postgres, fence: u64) {
    let options = format!("nodename=db1\nfence_id={fence}\naddresses={NODE},{NODE_V6}\nreplication_role=repl_db1\n");
    let off = revoke(postgres, "off", &options);
    assert_eq!(off.status, 0, "{off:?}");
}

/// `on` by its number alone: no addresses, no name, no role.
fn undo(postgres: &Postgres, fence: u64) -> Said {
    revoke(postgres, "on", &format!("fence_id={fence}\n"))
}

fn in_force(postgres: &Postgres) -> Vec<String> {
    let said = revoke(postgres, "in-force", "");
    assert_eq!(said.status, 0, "{said:?}");
    told(&said)
}

fn can_login(postgres: &Postgres) -> String {
    postgres.sql("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'repl_db1'")
}

fn comment(postgres: &Postgres) -> String {
    postgres.sql("SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = 'repl_db1'")
}

fn lines(postgres: &Postgres, fence: u64) -> String {
    format!("in-force fence={fence} node=db1 what=4 reject lines in {}", postgres.hba().display())
}

fn locked(port: u16) -> String {
    format!("NOLOGIN of role repl_db1 at port {port}")
}

#[test]
fn the_database_tells_every_fence_and_on_of_one_leaves_the_other() {
    if !is_root() {
        return;
    }
    let hosts = Hosts::start();
    let postgres = Postgres::start(&hosts);
    postgres.sql("COMMENT ON ROLE repl_db1 IS E'of db1\\nask \\'ops\\''");
    let before = std::fs::read(postgres.hba()).expect("the file");
    assert_eq!(in_force(&postgres), [""; 0]);
    fence(&postgres, 1);
    fence(&postgres, 2);
    let told = |fence| format!("{}; {}", lines(&postgres, fence), locked(5432));
    assert_eq!(in_force(&postgres), [told(1), told(2)]);
    assert!(comment(&postgres).starts_with("of db1\nask 'ops'\nregent fence 1 of node db1: NOLOGIN"));

    let on = undo(&postgres, 1);
    assert!(on.status == 0 && on.text.contains("fence 2 of this node remains"), "{on:?}");
    assert_eq!((in_force(&postgres), can_login(&postgres).as_str()), (vec![told(2)], "f"));
    assert_eq!(undo(&postgres, 1).status, 0, "twice is once");
    assert_eq!(can_login(&postgres), "f");

    assert_eq!(undo(&postgres, 2).status, 0);
    assert_eq!((in_force(&postgres), can_login(&postgres).as_str()), (vec![], "t"));
    assert_eq!(comment(&postgres), "of db1\nask 'ops'", "the operator's comment is as it was");
    assert_eq!(std::fs::read(postgres.hba()).expect("the file"), before, "not a byte differs");
}

#[test]
fn a_stopped_server_and_a_standby_tell_their_lines() {
    if !is_root() {
        return;
    }
    let hosts = Hosts::start();
    let mut postgres = Postgres::start(&hosts);
    fence(&postgres, 3);
    postgres.stop();
    assert_eq!(in_force(&postgres), [lines(&postgres, 3)]);
    postgres.becomes_standby();
    postgres.run();
    let said = revoke(&postgres, "in-force", "");
    assert!(said.text.contains("in recovery: the primary tells of the roles"), "{said:?}");
    assert_eq!(told(&said), [lines(&postgres, 3)], "its roles are the primary's");
    assert_eq!(undo(&postgres, 3).status, 0);
    assert_eq!(in_force(&postgres), [""; 0]);
}

#[test]
fn a_role_that_the_old_primary_locked_is_told_and_undone_on_the_new_one() {
    if !is_root() {
        return;
    }
    let hosts = Hosts::start();
    let mut old = Postgres::start(&hosts);
    let new = old.replica();
    fence(&old, 7);
    eventually("the standby has replayed it", || (can_login(&new) == "f").then_some(()));
    assert_eq!(in_force(&new), [""; 0], "the access file of this host was never changed");
    old.stop();
    assert_eq!(new.sql("SELECT pg_promote()"), "t");
    let told = format!("in-force fence=7 node=db1 what={}", locked(new.port));
    assert_eq!(in_force(&new), [told]);
    assert_eq!(undo(&new, 7).status, 0);
    assert_eq!((in_force(&new), can_login(&new).as_str()), (vec![], "t"));
}

#[test]
fn what_a_run_that_was_killed_left_behind_is_told_and_undone() {
    if !is_root() {
        return;
    }
    let hosts = Hosts::start();
    let postgres = Postgres::start(&hosts);
    let before = std::fs::read_to_string(postgres.hba()).expect("the file");

    // Killed after the file: the server was never told, the role never locked.
    let block = "# regent fence 1 begin\n# node db1\nhost all all 10.99.1.1/32 reject\n# regent fence 1 end\n";
    std::fs::write(postgres.hba(), format!("{block}{before}")).expect("written");
    let file = postgres.hba().display().to_string();
    assert_eq!(in_force(&postgres), [format!("in-force fence=1 node=db1 what=1 reject lines in {file}")]);
    assert_eq!(undo(&postgres, 1).status, 0);

    // A file that was put back by hand, and a block that lost its end: the role and the line are there all the same.
    fence(&postgres, 2);
    std::fs::write(postgres.hba(), format!("# regent fence 3 begin\nhost all all 10.99.1.1/32 reject\n{before}"))
        .expect("written");
    let role = format!("in-force fence=2 node=db1 what={}", locked(5432));
    assert_eq!(in_force(&postgres), [role, format!("in-force fence=3 node=- what=1 reject lines in {file}")]);
    assert_eq!((undo(&postgres, 2).status, undo(&postgres, 3).status), (0, 0));
    assert_eq!((in_force(&postgres), can_login(&postgres).as_str()), (vec![], "t"));
    assert_eq!(std::fs::read_to_string(postgres.hba()).expect("the file"), before);

    // An `on` that cannot use the server does not forget that it is not done.
    fence(&postgres, 4);
    let on = revoke(&postgres, "on", "fence_id=4\nsuperuser=app\n");
    assert!(on.status == 1 && on.text.contains("1 of 1 parts failed"), "{on:?}");
    let unfinished = format!("a block without reject lines, half undone, in {file}");
    assert_eq!(in_force(&postgres), [format!("in-force fence=4 node=db1 what={unfinished}; {}", locked(5432))]);
    // Who looks and cannot use the server fails, and tells the lines.
    let blind = revoke(&postgres, "in-force", "superuser=app\n");
    assert_eq!((blind.status, told(&blind)), (1, vec![format!("in-force fence=4 node=db1 what={unfinished}")]));
    assert_eq!(undo(&postgres, 4).status, 0);
    assert_eq!((in_force(&postgres), can_login(&postgres).as_str()), (vec![], "t"));
    assert_eq!(std::fs::read_to_string(postgres.hba()).expect("the file"), before);
}

#[test]
fn a_role_that_somebody_else_locked_is_not_the_fences() {
    if !is_root() {
        return;
    }
    let hosts = Hosts::start();
    let postgres = Postgres::start(&hosts);
    postgres.sql("ALTER ROLE repl_db1 NOLOGIN");
    fence(&postgres, 5);
    assert_eq!(in_force(&postgres), [lines(&postgres, 5)]);
    assert_eq!(undo(&postgres, 5).status, 0);
    assert_eq!(can_login(&postgres), "f", "it stays as its owner left it");
    // One that was given its login by hand meanwhile keeps it, and the record goes.
    postgres.sql("ALTER ROLE repl_db1 LOGIN");
    fence(&postgres, 6);
    postgres.sql("ALTER ROLE repl_db1 LOGIN");
    let told = format!("{}; a record in the comment of role repl_db1 at port 5432", lines(&postgres, 6));
    assert_eq!(in_force(&postgres), [told]);
    assert_eq!(undo(&postgres, 6).status, 0);
    assert_eq!((in_force(&postgres), comment(&postgres).as_str()), (vec![], ""));
}

#[test]
fn a_fence_that_came_while_the_server_was_a_standby_keeps_the_role_locked() {
    if !is_root() {
        return;
    }
    let hosts = Hosts::start();
    let mut old = Postgres::start(&hosts);
    let new = old.replica();
    fence(&old, 8);
    fence(&new, 8);
    fence(&new, 9);
    eventually("the standby has replayed it", || (can_login(&new) == "f").then_some(()));
    old.stop();
    new.sql("SELECT pg_promote()");
    let on = undo(&new, 8);
    assert!(on.status == 0 && on.text.contains("fence 9 of this node remains"), "{on:?}");
    assert_eq!(in_force(&new), [format!("{}; {}", lines(&new, 9), locked(new.port))], "it is the fence's now");
    assert_eq!((undo(&new, 9).status, can_login(&new).as_str()), (0, "t"));
}

#[test]
fn revocation_lists_are_told_and_taken_back_without_their_source() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().display().to_string();
    let list = |name: &str| {
        let text = format!("-----BEGIN X509 CRL-----\n{name}\n-----END X509 CRL-----\n");
        std::fs::write(format!("{path}/{name}"), &text).expect("written");
        text
    };
    let (base, _) = (list("crl.pem"), list("one"));
    let ask = |action: &str, more: &str| {
        call(CREDENTIALS, &[], &format!("action={action}\naddresses=192.0.2.1\ncrl_file={path}/crl.pem\n{more}"))
    };
    let now = || std::fs::read_to_string(format!("{path}/crl.pem")).expect("the list");
    let line = |fence: u64| format!("in-force fence={fence} node=- what=revocation list over {path}/crl.pem");
    assert_eq!(told(&ask("in-force", "")), [""; 0]);
    assert_eq!(ask("off", &format!("fence_id=1\ncrl_source={path}/one\n")).status, 0);
    assert_eq!(told(&ask("in-force", "")), [line(1)]);
    assert_eq!((ask("on", "fence_id=1\n").status, now()), (0, base.clone()));
    // Killed before it exchanged anything, and after it had put everything back: only its own copy is there.
    std::fs::copy(format!("{path}/one"), format!("{path}/crl.pem.fence-3")).expect("copied");
    assert_eq!(told(&ask("in-force", "")), [line(3)]);
    assert_eq!((ask("on", "fence_id=3\n").status, now()), (0, base));
    assert_eq!(told(&ask("in-force", "")), [""; 0]);
    let mut left: Vec<_> = std::fs::read_dir(&path).expect("a folder").map(|e| e.expect("one").file_name()).collect();
    left.sort();
    assert_eq!(left, ["crl.pem", "one"]);
}

fn name(text: &str) -> AgentName {
    text.parse().expect("a valid name")
}

/// db2 of the example, with the agents under test and its database's access file in `folder`.
fn db2(folder: &std::path::Path) -> Config {
    let example = include_str!("../../config/two-databases-and-witness.toml");
    let text = format!("run_dir = \"{}\"\n{example}", folder.display());
    let mut config = Config::parse(&text, "regent.toml", None, "db2").expect("a valid file");
    for (agent, program) in [("firewall", FIREWALL), ("credentials", CREDENTIALS)] {
        config.fencing.agents.get_mut(&name(agent)).expect("the example has it").command = program.into();
    }
    config
}

/// The whole way of a start: the host is looked at, compared with the ledger, and what is too much undone.
#[test]
fn what_the_ledger_does_not_want_is_found_and_undone_through_the_runner() {
    if !is_root() {
        return;
    }
    let hosts = Hosts::start();
    let folder = tempfile::tempdir().expect("a folder");
    let config = Arc::new(db2(folder.path()));
    let service = config.services.keys().next().expect("the example has one").to_string();
    let access = folder.path().join(&service).join("pg_hba.conf");
    std::fs::create_dir(access.parent().expect("a folder")).expect("made");
    std::fs::write(&access, "local all all peer\n").expect("written");
    cut(&hosts, 3, "db1", NODE);
    cut(&hosts, 900, "db1", NODE);
    let off = format!("action=off\nnodename=db1\nfence_id=3\naddresses={NODE}\nhba_file={}\n", access.display());
    assert_eq!(call(CREDENTIALS, &[], &off).status, 0);

    let state = State { settings: Some(Settings::seed(&config).into()), last_fence: FenceId(3), ..State::default() };
    let runner = Runner::with_agents(config.fencing.agents.clone(), crate::runner::leashes());
    hosts.within(&hosts.survivor, || {
        wait(async {
            let (found, whole) = look(&runner, &in_force_orders(&config)).await;
            assert!(whole);
            let places: Vec<_> = found.iter().map(|(agent, s)| (agent.as_str(), s.fence.0)).collect();
            assert_eq!(places, [("credentials", 3), ("firewall", 3), ("firewall", 900)], "{found:?}");
            assert!(found.iter().all(|(_, standing)| standing.node == "db1".parse().ok()), "{found:?}");
            let undo = undone(&state, &config.node, &found);
            assert_eq!(undo.len(), 3);
            for undo in undo {
                let run = runner.run(&undo.order(&config).expect("it is configured"), 1).await;
                assert_eq!(run.outcome, AgentOutcome::Succeeded, "{undo}: {run:?}");
            }
            assert_eq!(look(&runner, &in_force_orders(&config)).await, (Vec::new(), true));
        });
    });
    assert_eq!(chains_in_force(&hosts), [""; 0]);
    assert_eq!(std::fs::read_to_string(&access).expect("the file"), "local all all peer\n");
}

/// What `look` makes of one agent, a shell script, that runs on every voter.
fn look_at(actions: &str, body: &str) -> (Vec<(AgentName, Standing)>, bool) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().display();
    let text = format!(
        "#!/bin/sh\nread first\nif [ \"$first\" = action=metadata ]; then\n\
         echo '<resource-agent name=\"x\"><actions>{actions}</actions></resource-agent>'\nexit 0\nfi\n\
         echo \"$first\" > {path}/asked\n{body}\n"
    );
    let program = folder.path().join("agent");
    std::fs::write(&program, text).expect("written");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("executable");
    let mut config = db2(folder.path());
    let agents: BTreeMap<AgentName, Agent> = std::mem::take(&mut config.fencing.agents);
    let agent = Agent { command: program, ..agents[&name("firewall")].clone() };
    config.fencing.agents = [(name("firewall"), agent)].into();
    let (found, _) = wait(look(
        &Runner::with_agents(config.fencing.agents.clone(), crate::runner::leashes()),
        &in_force_orders(&config),
    ));
    let asked = std::fs::read_to_string(folder.path().join("asked")).ok();
    assert!(asked.iter().all(|word| word == "action=in-force\n"), "{asked:?}");
    (found, asked.is_some())
}

#[test]
fn only_an_agent_that_declares_it_is_asked_what_is_in_force() {
    let line = "echo in-force fence=7 node=db1 what=x";
    assert_eq!(look_at("<action name=\"off\"/><action name=\"monitor\"/>", line), (Vec::new(), false));
    let (found, asked) = look_at("<action name=\"off\"/><action name=\"in-force\"/>", line);
    assert!(asked && found.len() == 1, "{found:?}");
}

#[test]
fn every_line_counts_also_of_an_agent_that_fails() {
    let body = "echo hello\nfor i in $(seq 50); do echo in-force fence=$i node=- what=line $i; done\n\
                echo in-force fence=50 node=db1 what=more\necho in-force fence=51 node=db1 what=told >&2\n\
                echo in-force fence=x\nexit 1";
    let (found, _) = look_at("<action name=\"in-force\"/>", body);
    assert_eq!(found.len(), 51, "{found:?}");
    let more = Standing { fence: FenceId(50), node: "db1".parse().ok(), what: "line 50; more".to_owned() };
    assert_eq!(found[49], (name("firewall"), more));
    assert_eq!(found[50].1.what, "told");
}
