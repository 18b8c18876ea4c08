//! What the three agents have in common: metadata, exit status, bad requests.

use crate::{CREDENTIALS, FIREWALL, IPMI, call, is_root};

const ALL: [&str; 3] = [IPMI, FIREWALL, CREDENTIALS];

#[test]
fn metadata_validates_against_the_schema_of_the_ecosystem() {
    if !is_root() {
        return;
    }
    let schema = "/usr/share/cluster/relaxng/metadata.rng";
    for agent in ALL {
        let by_input = call(agent, &[], "action=metadata\n");
        let by_argument = call(agent, &["-o", "metadata"], "");
        assert_eq!((by_input.status, &by_input.text), (0, &by_argument.text), "{agent}");
        let checked = call("xmllint", &["--noout", "--relaxng", schema, "-"], &by_input.text);
        assert_eq!(checked.status, 0, "{agent}: {}", checked.text);
    }
}

#[test]
fn only_the_power_agent_offers_reboot() {
    for (agent, offers) in ALL.into_iter().zip([true, false, false]) {
        let metadata = call(agent, &[], "action=metadata\n").text;
        assert_eq!(metadata.contains("<action name=\"reboot\""), offers, "{agent}");
        assert!(metadata.contains("<action name=\"off\""), "{agent}");
    }
    let refused = call(FIREWALL, &[], "action=reboot\naddresses=192.0.2.1\n");
    assert_eq!(refused.status, 1, "{refused:?}");
    assert!(refused.text.contains("\"reboot\" is not one of on, off"), "{refused:?}");
}

#[test]
fn only_agents_that_act_on_their_own_host_tell_what_is_in_force() {
    for (agent, offers) in ALL.into_iter().zip([false, true, true]) {
        let metadata = call(agent, &[], "action=metadata\n").text;
        assert_eq!(metadata.contains("<action name=\"in-force\""), offers, "{agent}");
    }
    assert!(call(IPMI, &[], "action=in-force\nip=::1\n").text.contains("\"in-force\" is not one of on, off"));
}

#[test]
fn an_agent_without_an_action_refuses() {
    for agent in ALL {
        for input in ["", "\n", "# action=off\n", "ip=127.0.0.1\naddresses=192.0.2.1\n", "action=\n"] {
            let refused = call(agent, &[], input);
            assert_eq!(refused.status, 1, "{agent} {input:?}: {refused:?}");
            assert!(refused.text.contains("no action was given"), "{agent} {input:?}: {refused:?}");
        }
    }
}

#[test]
fn bad_requests_are_refused_with_the_option_and_what_was_expected() {
    for (agent, input, expected) in [
        (IPMI, "action=off\n", "option ip is needed"),
        (IPMI, "action=off\nip=::1\nipport=x\n", "option ipport is \"x\": expected a whole number"),
        (IPMI, "action=off\nip=::1\nprivlvl=king\n", "expected callback, user, operator or administrator"),
        (IPMI, "action=off\nip=::1\npassword_file=/nonexistent\n", "password_file /nonexistent: cannot be read"),
        (FIREWALL, "action=off\n", "option addresses is needed"),
        (FIREWALL, "action=off\naddresses=db1\n", "\"db1\": expected IP addresses"),
        (FIREWALL, "action=off\naddresses=0.0.0.0\n", "would cut this host off"),
        (FIREWALL, "action=off\naddresses=192.0.2.1\nregent_ports=all\n", "\"all\": expected port numbers"),
        (FIREWALL, "action=on\nfence_id=1; flush ruleset\n", "expected a number"),
        (CREDENTIALS, "action=off\nhba_file=/x\n", "option addresses is needed"),
        (CREDENTIALS, "action=off\naddresses=192.0.2.1\nhba_file=/a,/b,/c\nport=1,2\n", "port has 2 items"),
        (CREDENTIALS, "action=off\naddresses=192.0.2.1\nhba_file=/a\nreplication_role=postgres\n", "the superuser"),
        (CREDENTIALS, "action=off\naddresses=192.0.2.1\ncrl_file=/a\n", "crl_source is not given"),
    ] {
        let refused = call(agent, &[], input);
        assert_eq!(refused.status, 1, "{input:?}: {refused:?}");
        assert!(refused.text.contains(expected), "{input:?}: {refused:?}");
    }
}

#[test]
fn a_password_on_the_command_line_is_refused_and_not_repeated() {
    let refused = call(IPMI, &["--action=status", "--ip=127.0.0.1", "--password=hunter2"], "");
    assert_eq!(refused.status, 1);
    assert!(refused.text.contains("--password-file") && !refused.text.contains("hunter2"), "{refused:?}");
}

#[test]
fn help_version_and_manual_page_name_every_option() {
    for agent in ALL {
        let help = call(agent, &["--help"], "");
        let page = call(agent, &["--action=manpage"], "");
        assert_eq!((help.status, page.status), (0, 0), "{agent}");
        let metadata = call(agent, &[], "action=metadata\n").text;
        let current = metadata.lines().filter(|line| line.contains("<parameter name") && !line.contains("deprecated"));
        for line in current {
            let name = line.split('"').nth(1).expect("a name");
            assert!(help.text.contains(&name.replace('_', "-")) || help.text.contains(name), "{agent}: {name}");
            assert!(page.text.contains(&format!(".B {name} ")), "{agent}: {name}");
        }
        assert!(call(agent, &["--version"], "").text.contains(env!("CARGO_PKG_VERSION")), "{agent}");
    }
}
