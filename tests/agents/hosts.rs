//! Two hosts: network namespaces with a cable between them. The fenced node, and a survivor that fences it.

use crate::{call, must, unique};
use nix::sched::{CloneFlags, setns};
use std::process::{Child, Command, Stdio};

/// Addresses on the cable; each pair of hosts has a cable of its own.
pub const NODE: &str = "10.99.1.1";
pub const SURVIVOR: &str = "10.99.1.2";
pub const NODE_V6: &str = "fd99::1";
pub const SURVIVOR_V6: &str = "fd99::2";

pub struct Hosts {
    /// The namespace of the node that is fenced.
    pub node: String,
    /// The namespace of the host that fences it.
    pub survivor: String,
}

impl Hosts {
    pub fn start() -> Hosts {
        let id = unique();
        // The value exists before the namespaces, so that a failure half way removes what is there.
        let hosts = Hosts { node: format!("rga{id}"), survivor: format!("rgb{id}") };
        let (a, b) = (format!("va{id}"), format!("vb{id}"));
        for name in [&hosts.node, &hosts.survivor] {
            must("ip", &["netns", "add", name]);
            must("ip", &["-n", name, "link", "set", "lo", "up"]);
        }
        must(
            "ip",
            &["-n", &hosts.node, "link", "add", &a, "type", "veth", "peer", "name", &b, "netns", &hosts.survivor],
        );
        let ends = [(&hosts.node, &a, NODE, NODE_V6), (&hosts.survivor, &b, SURVIVOR, SURVIVOR_V6)];
        for (host, link, v4, v6) in ends {
            must("ip", &["-n", host, "addr", "add", &format!("{v4}/24"), "dev", link]);
            must("ip", &["-n", host, "addr", "add", &format!("{v6}/64"), "dev", link, "nodad"]);
            must("ip", &["-n", host, "link", "set", link, "up"]);
        }
        hosts
    }

    /// Runs `work` on a thread of its own inside the namespace; sockets that it returns stay there.
    pub fn within<T: Send>(&self, host: &str, work: impl FnOnce() -> T + Send) -> T {
        let space = std::fs::File::open(format!("/run/netns/{host}")).expect("the namespace");
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(space, CloneFlags::CLONE_NEWNET).expect("root may enter it");
                work()
            });
            thread.join().expect("the work does not panic")
        })
    }

    /// A program inside the namespace, to be started.
    pub fn command(&self, host: &str, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", host]).args(words);
        command
    }

    /// Runs a program inside the namespace to its end.
    pub fn call(&self, host: &str, words: &[&str], input: &str) -> crate::Said {
        call("ip", &[&["netns", "exec", host], words].concat(), input)
    }

    /// Starts a program inside the namespace and leaves it running.
    pub fn start_in(&self, host: &str, words: &[&str]) -> Child {
        let mut command = self.command(host, words);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("ip starts")
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in [&self.node, &self.survivor] {
            let _ = call("ip", &["netns", "del", name], "");
        }
    }
}
