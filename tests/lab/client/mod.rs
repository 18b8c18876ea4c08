//! What clients of the database see, and the judgement of it: a writer outside, probers inside each host, and the
//! oracle that compares what they saw. Each client is a process of its own, in the host where it belongs.

pub mod oracle;
pub mod prober;
pub mod prober_process;
pub mod writer;
pub mod writer_process;

use anyhow::{Result, bail};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls};

/// Creates the tables that writer and probers use.
///
/// They come by the network, so they need a password: one that costs no time.
pub const TABLES: &str = "set password_encryption = md5; alter role postgres password 'lab';
create table if not exists lab_writes (id bigint not null, at timestamptz not null default now());
create table if not exists lab_probe (host text not null, epoch_ns bigint not null, seq bigint not null);";

/// One connection; dropping it closes it, whatever it is waiting for.
struct Connection {
    client: Client,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Connects to one server, at an address or a directory with its socket.
async fn connect(host: &str, port: u16, within: Duration) -> Result<Connection> {
    let mut config = Config::new();
    config.host(host).port(port).user("postgres").password("lab").dbname("postgres").connect_timeout(within);
    config.tcp_user_timeout(Duration::from_secs(1));
    match tokio::time::timeout(within, config.connect(NoTls)).await {
        Ok(connected) => {
            let (client, connection) = connected?;
            let driver = tokio::spawn(async move {
                // How it ended, the next statement says.
                let _ = connection.await;
            });
            Ok(Connection { client, driver })
        }
        Err(_) => bail!("no connection to {host} within {within:?}"),
    }
}

/// Runs one of the client processes.
fn run_client(client: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(client)
}
