//! `fence_regent_ipmi` against `ipmi_sim`.

use crate::bmc::{Bmc, PASSWORD, Power, USER};
use crate::hosts::{Hosts, NODE_V6};
use crate::{IPMI, Said, call, is_root};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

fn ask(bmc: &Bmc, action: &str, more: &str) -> Said {
    call(IPMI, &[], &format!("action={action}\nnodename=db1\n{}{more}", bmc.options()))
}

#[test]
fn off_on_and_status_follow_the_hosts_power() {
    if !is_root() {
        return;
    }
    let bmc = Bmc::start(Power::Obeys);
    assert_eq!(ask(&bmc, "status", "").status, 0);
    assert_eq!(ask(&bmc, "monitor", "").status, 0);
    for _ in 0..2 {
        let off = ask(&bmc, "off", "");
        assert_eq!((off.status, bmc.is_on()), (0, false), "the second time it is off already: {off:?}");
    }
    assert_eq!(ask(&bmc, "status", "").status, 2);
    assert_eq!(ask(&bmc, "monitor", "").status, 0, "reachable is enough");
    for _ in 0..2 {
        assert_eq!((ask(&bmc, "on", "").status, bmc.is_on()), (0, true));
    }
    assert_eq!((ask(&bmc, "reboot", "").status, bmc.is_on()), (0, true));
    let unknown = ask(&bmc, "cycle", "");
    assert_eq!((unknown.status, bmc.is_on()), (1, true), "{unknown:?}");
}

#[test]
fn off_is_fast() {
    if !is_root() {
        return;
    }
    let bmc = Bmc::start(Power::Obeys);
    let mut took: Vec<Duration> = (0..7)
        .map(|_| {
            assert_eq!(ask(&bmc, "on", "").status, 0);
            let begun = Instant::now();
            assert_eq!(ask(&bmc, "off", "").status, 0);
            begun.elapsed()
        })
        .collect();
    took.sort();
    println!("ipmi off, verified: min {:?}, median {:?}, max {:?}", took[0], took[3], took[6]);
    assert!(took[3] < Duration::from_millis(500), "{took:?}");
}

#[test]
fn off_waits_for_a_host_that_lingers() {
    if !is_root() {
        return;
    }
    let bmc = Bmc::start(Power::Lingers(4));
    let begun = Instant::now();
    assert_eq!((ask(&bmc, "off", "").status, bmc.is_on()), (0, false));
    assert!(begun.elapsed() >= Duration::from_millis(400));
}

#[test]
fn a_bmc_that_takes_the_order_and_does_nothing_is_a_failure() {
    if !is_root() {
        return;
    }
    let bmc = Bmc::start(Power::Ignores);
    let off = ask(&bmc, "off", "power_timeout=0.6\n");
    assert_eq!(off.status, 1, "{off:?}");
    assert!(off.text.contains("was not seen off within 600ms (last answer: on)"), "{off:?}");
    let reboot = ask(&bmc, "reboot", "power_timeout=0.3\n");
    assert_eq!(reboot.status, 1, "no reboot without the off half: {reboot:?}");
}

#[test]
fn an_order_that_is_refused_counts_only_where_the_host_is_there_already() {
    if !is_root() {
        return;
    }
    let bmc = Bmc::start(Power::Refuses);
    let off = ask(&bmc, "off", "");
    assert!(off.status == 1 && off.text.contains("refuses the order"), "{off:?}");
    bmc.set(false);
    let off = ask(&bmc, "off", "");
    assert!(off.status == 0 && off.text.contains("was off already"), "{off:?}");
}

#[test]
fn a_wrong_password_fails_at_once_and_says_so() {
    if !is_root() {
        return;
    }
    let bmc = Bmc::start(Power::Obeys);
    let begun = Instant::now();
    let off = ask(&bmc, "off", "password=Wr0ng-Passw0rd\nverbose=1\n");
    assert_eq!((off.status, bmc.is_on()), (1, true), "{off:?}");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(off.text.contains("refuses the login of user \"fence\""), "{off:?}");
    assert!(!off.text.contains("Wr0ng-Passw0rd"), "{off:?}");
}

#[test]
fn a_silent_bmc_is_a_failure_within_its_bound() {
    if !is_root() {
        return;
    }
    let begun = Instant::now();
    let input = format!("action=off\nip=127.0.0.1\nipport=1\nusername={USER}\npassword={PASSWORD}\n");
    let off = call(IPMI, &[], &input);
    assert_eq!(off.status, 1);
    assert!(off.text.contains("no session with the BMC 127.0.0.1"), "{off:?}");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    let off = call(IPMI, &[], &(input + "shell_timeout=0.3\n"));
    assert!(off.text.contains("did not end within 300ms"), "{off:?}");
}

#[test]
fn a_bmc_without_a_free_session_is_told_as_such() {
    if !is_root() {
        return;
    }
    let bmc = Bmc::start(Power::Obeys);
    bmc.take_all_sessions();
    let off = ask(&bmc, "off", "");
    assert_eq!((off.status, bmc.is_on()), (1, true), "{off:?}");
    assert!(off.text.contains("has no free session") && !off.text.contains("does not answer"), "{off:?}");
    // Over IPMI 1.5 it has other words for it.
    let old = ask(&bmc, "status", "lanplus=0\n");
    assert!(old.status == 1 && old.text.contains("has no free session"), "{old:?}");
}

#[test]
fn the_password_comes_from_a_file_or_a_script() {
    if !is_root() {
        return;
    }
    let bmc = Bmc::start(Power::Obeys);
    let folder = tempfile::tempdir().expect("a folder");
    let (file, script) = (folder.path().join("pw"), folder.path().join("script"));
    let base = format!("action=status\nip=127.0.0.1\nipport={}\nusername={USER}\n", bmc.port);
    std::fs::write(&file, format!("{PASSWORD}\nnot this\n")).expect("written");
    let by_file = format!("{base}password_file={}\n", file.display());
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).expect("mode");
    let exposed = call(IPMI, &[], &by_file);
    assert!(exposed.status == 1 && exposed.text.contains("(mode 644): run chmod o="), "{exposed:?}");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("mode");
    assert_eq!(call(IPMI, &[], &by_file).status, 0);
    std::fs::write(&script, format!("#!/bin/sh\ncat {}\n", file.display())).expect("written");
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o700)).expect("mode");
    assert_eq!(call(IPMI, &[], &format!("{base}passwd_script={}\n", script.display())).status, 0);
    std::fs::write(&script, format!("#!/bin/sh\necho {PASSWORD}\nexit 3\n")).expect("written");
    let failing = call(IPMI, &[], &format!("{base}password_script={}\n", script.display()));
    assert!(failing.status == 1 && !failing.text.contains(PASSWORD), "{failing:?}");
}

#[test]
fn the_password_is_on_no_command_line_and_in_no_output() {
    if !is_root() {
        return;
    }
    let bmc = Bmc::start(Power::Lingers(8));
    let port = bmc.port.to_string();
    let options = bmc.options();
    let agent = std::thread::spawn(move || call(IPMI, &[], &format!("action=off\nverbose=1\n{options}")));
    let mut seen = std::collections::BTreeSet::new();
    while !agent.is_finished() {
        for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            // Other tests run ipmitool with -P; this one is known by its BMC's port.
            if line.contains(&format!("-p {port} ")) {
                seen.insert(line);
            }
        }
    }
    let off = agent.join().expect("the agent ran");
    assert_eq!(off.status, 0, "{off:?}");
    assert!(seen.iter().any(|line| line.contains("ipmitool")), "no ipmitool was seen: {seen:?}");
    assert!(!seen.iter().any(|line| line.contains(PASSWORD)), "{seen:?}");
    assert!(off.text.contains("chassis power off; chassis power status") && !off.text.contains(PASSWORD), "{off:?}");
}

#[test]
fn a_bmc_of_another_host_is_barred() {
    if !is_root() {
        return;
    }
    let bmc = Bmc::start(Power::Obeys);
    let wrong = ask(&bmc, "off", "guid=00000000-0000-0000-0000-000000000001\n");
    assert_eq!((wrong.status, bmc.is_on()), (1, true), "{wrong:?}");
    assert!(wrong.text.contains("belongs to another host"), "{wrong:?}");
    assert_eq!(ask(&bmc, "monitor", "guid=00000000-0000-0000-0000-000000000001\n").status, 1);
    let right = ask(&bmc, "off", &format!("guid={}\n", bmc.guid().to_uppercase()));
    assert_eq!((right.status, bmc.is_on()), (0, false), "{right:?}");
}

/// ipmitool itself reaches no BMC at `::1`, where none is.
#[test]
fn a_bmc_over_ipv6_is_ordered_by_ours_and_by_fence_ipmilan() {
    if !is_root() {
        return;
    }
    let hosts = Hosts::start();
    let bmc = hosts.within(&hosts.node, || Bmc::start_at(NODE_V6, Power::Obeys));
    for agent in [IPMI, "fence_ipmilan"] {
        let ask = |action: &str| {
            let input = format!("action={action}\nlanplus=1\ncipher=3\n{}", bmc.options());
            hosts.within(&hosts.survivor, || call(agent, &[], &input))
        };
        let begun = Instant::now();
        for (action, status, is_on) in [("monitor", 0, true), ("off", 0, false), ("status", 2, false), ("on", 0, true)]
        {
            let said = ask(action);
            assert_eq!((said.status, bmc.is_on()), (status, is_on), "{agent} {action}: {said:?}");
        }
        println!("{agent} over IPv6, four orders: {:?}", begun.elapsed());
    }
}
