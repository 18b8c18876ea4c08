//! `docs/backup.md` as somebody follows it: its configuration files, its blocks for regent's file, its commands, with the
//! paths of a test in the place of the page's own. So page and test cannot part.

use crate::cluster::bin_dir;
use regent::config::{Commands, Config};
use std::process::Command;

const PAGE: &str = include_str!("../../docs/backup.md");

/// What the page leaves to others: regent's file but for the service.
const HEAD: &str = r#"
cluster = "orders"
data_dir = "/var/lib/regent"
[security]
insecure = true
[fencing]
[watchdog]
[nodes.db1]
primary = "127.0.1.1"
secondary = "127.0.2.1"
[nodes.db2]
primary = "127.0.1.2"
secondary = "127.0.2.2"
[nodes.w1]
role = "witness"
primary = "127.0.1.3"
secondary = "127.0.2.3"
"#;

/// The blocks below a heading, up to the next one: language, text.
fn blocks(heading: &str) -> Vec<(&'static str, String)> {
    let mut lines =
        PAGE.lines().skip_while(|line| !line.starts_with('#') || line.trim_start_matches('#').trim() != heading);
    assert!(lines.next().is_some(), "the page has no {heading:?}");
    let (mut found, mut open): (Vec<(&str, String)>, _) = (Vec::new(), false);
    for line in lines {
        match line.strip_prefix("```") {
            Some(_) if open => open = false,
            Some(language) => {
                found.push((language, String::new()));
                open = true;
            }
            None if open => {
                let (_, text) = found.last_mut().expect("a block has begun");
                text.push_str(line);
                text.push('\n');
            }
            None if line.starts_with('#') => break,
            None => {}
        }
    }
    found
}

fn block(heading: &str, language: &str) -> String {
    let found = blocks(heading).into_iter().find(|(found, _)| *found == language);
    found.unwrap_or_else(|| panic!("no {language} below {heading:?}")).1
}

/// A part of the page, in a directory of a test.
pub struct Part {
    pub heading: &'static str,
    /// What stands in the page, and what it is here. The first that fits counts.
    places: Vec<(String, String)>,
}

impl Part {
    /// With a moment in the place of the page's own.
    pub fn new(heading: &'static str, folder: &std::path::Path, moments: &[(&str, &str)]) -> Part {
        let here = folder.display();
        let mut places: Vec<(String, String)> =
            moments.iter().map(|(there, here)| ((*there).to_owned(), (*here).to_owned())).collect();
        for (there, here) in [
            ("/etc/pgbackrest/orders.conf", format!("{here}/tool.conf")),
            ("/etc/barman/orders.conf", format!("{here}/tool.conf")),
            ("/backup", format!("{here}/backup")),
            ("/var/lib/postgresql/15/main", format!("{here}/db1/main")),
            ("/run/regent/orders", format!("{here}/db1/run/orders")),
            ("5432", "5499".to_owned()),
            ("/etc/barman.d", format!("{here}/backup")),
        ] {
            places.push((there.to_owned(), here));
        }
        Part { heading, places }
    }

    fn here(&self, text: &str) -> String {
        self.places.iter().fold(text.to_owned(), |text, (there, here)| text.replace(there, here))
    }

    /// What the tool's own file says.
    pub fn file(&self) -> String {
        self.here(&block(self.heading, "text"))
    }

    /// What regent's file says in the end, which it must accept.
    pub fn config(&self) -> Config {
        let (service, database) = ("[service.orders]\n", "[service.orders.postgresql]\n");
        let mut text = self.here(&block(self.heading, "toml"));
        for (table, lines) in [
            (service, "engine = \"postgresql\"\n".to_owned()),
            (database, format!("data_dir = \"/srv/main\"\nbin_dir = \"{}\"\n", bin_dir())),
        ] {
            if !text.contains(table) {
                text.push_str(table);
            }
            text = text.replace(table, &format!("{table}{lines}"));
        }
        let parsed = Config::parse(&format!("{HEAD}{text}"), self.heading, Some("db1"), "db1");
        parsed.unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    /// The programs that it names.
    pub fn commands(&self) -> Commands {
        self.config().services.values().next().expect("one service").postgresql.commands.clone()
    }

    /// Types the page's commands on this host.
    pub fn follow(&self) {
        let commands = blocks(self.heading).into_iter().filter(|(language, _)| *language == "sh");
        for line in commands.flat_map(|(_, text)| self.here(&text).lines().map(str::to_owned).collect::<Vec<_>>()) {
            let begun = std::time::Instant::now();
            let done = Command::new("sh").args(["-c", line.strip_prefix("sudo ").unwrap_or(&line)]).output();
            let done = done.expect("sh runs");
            println!("TIME {line}: {:?}", begun.elapsed());
            let said = [done.stdout, done.stderr].concat();
            assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&said));
        }
    }
}
