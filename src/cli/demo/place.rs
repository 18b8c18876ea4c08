//! The demo's folder: three nodes with their configuration, power switch and simulated BMC, and one shared disk.
//!
//! Everything lies below one folder on a real file system (the disk channel uses O_DIRECT), and `stop` in it ends and
//! removes everything, also after this program is gone.

use crate::clock;
use crate::consensus::certs;
use anyhow::{Context, bail, ensure};
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The nodes, and the last number of each one's addresses.
pub const NODES: [(&str, u8); 3] = [("db1", 11), ("db2", 12), ("db3", 13)];
/// Not PostgreSQL's usual port, so that a database of this machine is not in the way.
pub const PORT: u16 = 55432;
/// The only service.
pub const SERVICE: &str = "orders";
const CLUSTER: &str = "demo";
/// A kept demo may run for as long.
const CERTIFICATE_DAYS: u64 = 30;
const BMC_PORT: u16 = 9623;
const BIN_DIR: &str = "/usr/lib/postgresql/15/bin";
const AGENT: &str = "fence_regent_ipmi";

/// A demo that was set up.
pub struct Place {
    pub folder: PathBuf,
}

impl Place {
    /// Writes every file. Nothing runs yet.
    pub fn make() -> anyhow::Result<Place> {
        let program = std::env::current_exe().context("the path of this program cannot be told")?;
        let agent = agent_beside(&program)?;
        let folder = PathBuf::from(format!("/var/tmp/regent-demo-{}", std::process::id()));
        let place = Place { folder: own_folder(folder)? };
        if let Err(error) = place.fill(&program, &agent) {
            place.stop();
            return Err(error);
        }
        Ok(place)
    }

    fn fill(&self, program: &Path, agent: &Path) -> anyhow::Result<()> {
        script(&self.folder.join("stop"), include_str!("stop.sh"))?;
        symlink(program, self.folder.join("regent"))?;
        let bmc_password = drawn()?;
        secret(&self.folder.join("bmc.password"), &bmc_password)?;
        secret(&self.folder.join("replication.password"), &drawn()?)?;
        let ca = self.folder.join("ca");
        certs::init(&ca, CLUSTER, clock::wall())?;
        for (name, number) in NODES {
            let node = self.node(name);
            certs::issue(&ca, &name.parse()?, &[], CERTIFICATE_DAYS, clock::wall())?;
            // PostgreSQL's user makes its directory in here itself.
            fs::create_dir_all(node.join("database"))?;
            let postgres = nix::unistd::User::from_name("postgres")?.context("there is no user postgres")?;
            nix::unistd::chown(&node.join("database"), Some(postgres.uid), Some(postgres.gid))?;
            fs::write(node.join("regent.toml"), self.configuration(name, agent))?;
            script(&node.join("power"), include_str!("power.sh"))?;
            script(&node.join("chassis"), include_str!("chassis.sh"))?;
            secret(&node.join("bmc.conf"), &bmc_configuration(&node, number, &bmc_password))?;
            fs::write(node.join("bmc.emu"), BMC_EMULATOR)?;
        }
        Ok(())
    }

    pub fn node(&self, name: &str) -> PathBuf {
        self.folder.join("nodes").join(name)
    }

    /// The admin socket of a node.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.node(name).join("run").join(crate::api::admin::SOCKET_NAME)
    }

    /// Where each node's database has its socket.
    pub fn sockets(&self) -> Vec<PathBuf> {
        NODES.iter().map(|(name, _)| self.node(name).join("run").join(SERVICE).join("socket")).collect()
    }

    /// Prepares the shared disk, starts the BMCs, and switches every node on.
    pub fn start(&self) -> anyhow::Result<()> {
        let disk = Command::new(self.folder.join("regent"))
            .args(["disk", "init"])
            .arg(self.folder.join("disk"))
            .arg("--config")
            .arg(self.node(NODES[0].0).join("regent.toml"))
            .output()?;
        ensure!(disk.status.success(), "regent disk init: {}", String::from_utf8_lossy(&disk.stderr));
        for (name, _) in NODES {
            self.start_bmc(name)?;
            self.power(name, "on")?;
        }
        Ok(())
    }

    fn start_bmc(&self, name: &str) -> anyhow::Result<()> {
        let node = self.node(name);
        let log = fs::File::create(node.join("bmc.log"))?;
        let bmc = Command::new("ipmi_sim")
            .args(["-n", "-c", "bmc.conf", "-f", "bmc.emu", "-s", "bmc.state"])
            .current_dir(&node)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("ipmi_sim cannot be started")?;
        // It outlives this program when the demo is kept; `stop` ends it by this number.
        Ok(fs::write(node.join("bmc.pid"), bmc.id().to_string())?)
    }

    /// `on`, `off`: as the power cord would.
    pub fn power(&self, name: &str, word: &str) -> anyhow::Result<()> {
        let status = Command::new(self.node(name).join("power")).arg(word).stdin(Stdio::null()).status()?;
        ensure!(status.success(), "the power of {name} could not be switched {word}: {status}");
        Ok(())
    }

    /// Ends and removes everything. What is left is named.
    pub fn stop(&self) {
        let ended = Command::new(self.folder.join("stop")).stdin(Stdio::null()).status();
        if !ended.is_ok_and(|status| status.success()) {
            crate::cli::output::complain(&format!(
                "the demo could not be removed wholly: see {}",
                self.folder.display()
            ));
        }
    }

    /// The same file on every node but for its first line, as on real hosts.
    fn configuration(&self, node: &str, agent: &Path) -> String {
        let folder = self.folder.display();
        let mut text = format!(
            r#"node = "{node}"
# The demo: three nodes on the loopback network of one host. Everything a node keeps lies in a folder of its own.
cluster      = "{CLUSTER}"
data_dir     = "{folder}/nodes/{{node}}/ledger"
run_dir      = "{folder}/nodes/{{node}}/run"
boot_id_file = "{folder}/nodes/{{node}}/boot_id"

[security]
ca             = "{folder}/ca/{{node}}/ca.pem"
certificate    = "{folder}/ca/{{node}}/node.pem"
key            = "{folder}/ca/{{node}}/node.key"
heartbeat_keys = ["{folder}/ca/{{node}}/heartbeat.key"]

[channels.disk]
path = "{folder}/disk"

# The assistants (firewall, credentials) cut a node off by its addresses. Here all nodes share one network, so they
# would cut everybody off: on real hosts you want them.
[[fencing.level]]
agents = ["ipmi"]

[fencing.agents.ipmi]
kind    = "power"
command = "{agent}"
options = {{ lanplus = "1", cipher = "3", username = "fence", password_file = "{folder}/bmc.password", ipport = "{BMC_PORT}" }}
"#,
            agent = agent.display(),
        );
        for (name, number) in NODES {
            text += &format!("node.{name} = {{ ip = \"127.0.3.{number}\" }}\n");
        }
        for (name, number) in NODES {
            text += &format!(
                "\n[nodes.{name}]\nprimary        = \"127.0.1.{number}\"\nsecondary      = \"127.0.2.{number}\"\n\
                 grpc_port      = 17420\nheartbeat_port = 17421\n"
            );
        }
        text + &format!(
            r#"
[service.{SERVICE}]
engine    = "postgresql"
bootstrap = "initdb"
[service.{SERVICE}.postgresql]
data_dir = "{folder}/nodes/{{node}}/database/main"
bin_dir  = "{BIN_DIR}"
port     = {PORT}
log_dir  = "{folder}/nodes/{{node}}/database/log"
replication_password_file = "{folder}/replication.password"
"#
        )
    }
}

/// Nobody else on this machine gets in: PostgreSQL's user goes through it to its own, and lists nothing.
fn own_folder(folder: PathBuf) -> anyhow::Result<PathBuf> {
    let made = fs::DirBuilder::new().mode(0o710).create(&folder);
    made.with_context(|| format!("{} cannot be made", folder.display()))?;
    let postgres = nix::unistd::User::from_name("postgres")?.context("there is no user postgres")?;
    nix::unistd::chown(&folder, None, Some(postgres.gid))?;
    Ok(folder)
}

/// The fence agent that was built or installed with this program.
fn agent_beside(program: &Path) -> anyhow::Result<PathBuf> {
    let folders = [program.parent().unwrap_or(Path::new("/")), Path::new("/usr/lib/regent")];
    let found = folders.iter().map(|folder| folder.join(AGENT)).find(|path| path.is_file());
    found.with_context(|| format!("{AGENT} is neither beside {} nor in /usr/lib/regent", program.display()))
}

/// What must be there before anything is made: everything that is missing is named at once.
pub fn check() -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "the demo needs root: it runs PostgreSQL as its own user and makes PID namespaces, so that cutting a \
             node's power really ends all of its processes. Run it with sudo"
        );
    }
    let missing = |program: &&str| {
        let folders = [BIN_DIR, "/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin"];
        !folders.iter().any(|folder| Path::new(folder).join(program).is_file())
    };
    let wanted =
        ["postgres", "initdb", "pg_basebackup", "pg_rewind", "ipmi_sim", "ipmitool", "unshare", "setsid", "awk"];
    let missing: Vec<&str> = wanted.into_iter().filter(missing).collect();
    ensure!(missing.is_empty(), "missing: {}; scripts/prepare installs what the demo needs", missing.join(", "));
    Ok(())
}

const BMC_EMULATOR: &str = "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\n\
                            sel_enable 0x20 1000 0x0a\nmc_enable 0x20\n";

fn bmc_configuration(node: &Path, number: u8, password: &str) -> String {
    format!(
        "name \"bmc\"\nset_working_mc 0x20\n  startlan 1\n    addr 127.0.3.{number} {BMC_PORT}\n    priv_limit admin\n    \
         allowed_auths_callback md5\n    allowed_auths_user md5\n    allowed_auths_operator md5\n    \
         allowed_auths_admin md5\n    guid a123456789abcdefa123456789abcd{number}\n  endlan\n  \
         chassis_control \"{}\"\n  user 1 false \"\" \"\" user 10 md5\n  \
         user 2 true \"fence\" \"{password}\" admin 10 md5\n",
        node.join("chassis").display()
    )
}

fn script(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

/// A password that nobody else knows.
fn drawn() -> anyhow::Result<String> {
    let random = ring::rand::generate::<[u8; 8]>(&ring::rand::SystemRandom::new());
    let bytes = random.ok().context("the kernel gives no random bytes")?.expose();
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A file that only its owner may read, from its first byte on.
fn secret(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(writeln!(file, "{text}")?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rights::Rights;

    #[test]
    fn a_demo_opens_nothing_to_other_users_of_the_machine() {
        if !nix::unistd::geteuid().is_root() {
            println!("SKIPPED: it takes root to act as another user");
            assert!(std::env::var("CI").as_deref() != Ok("true"), "CI runs this as root");
            return;
        }
        let outer = tempfile::Builder::new().tempdir_in("/var/tmp").expect("a temporary directory");
        fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o755)).expect("mine");
        let place = Place { folder: own_folder(outer.path().join("demo")).expect("made") };
        place.fill(Path::new("/usr/bin/regent"), Path::new("/usr/lib/regent/fence_regent_ipmi")).expect("filled");
        let reads = |uid: u32, path: &Path| {
            let user = nix::unistd::User::from_uid(uid.into()).expect("readable").expect("known");
            let rights = Rights::of(uid, user.gid.as_raw(), Vec::new());
            rights.within(|| fs::read(path).is_ok() || fs::read_dir(path).is_ok()).expect("root")
        };
        let postgres = nix::unistd::User::from_name("postgres").expect("readable").expect("installed").uid.as_raw();
        let config = place.node("db1").join("regent.toml");
        let secrets = ["bmc.password", "replication.password", "nodes/db1/bmc.conf", "ca/db1/node.key", "ca/ca.key"];
        for secret in secrets.map(|name| place.folder.join(name)) {
            assert!(secret.exists() && !reads(postgres, &secret), "{} is open", secret.display());
        }
        assert!(!reads(65534, &config) && !reads(65534, &place.folder) && !reads(postgres, &place.folder));
        let config = fs::read_to_string(config).expect("readable");
        assert!(!config.contains("trust") && config.contains("replication_password_file"), "{config}");
        assert_ne!(drawn().expect("drawn"), drawn().expect("drawn"));
    }
}
