//! Connections to another node's database, over whichever of its two networks answers: the one that comes first has a head
//! start, and is not waited for beyond that. A network over which nothing comes says nothing either, so only time tells.
//!
//! Not here: what is asked on them (`rejoin.rs`), and the connections of PostgreSQL's own programs, which have both addresses
//! (`settings.rs`).

use super::core::Core;
use super::error::{EngineError, Result};
use super::networks::network_of;
use super::session::{HOME, Session};
use super::{access, settings, tls};
use crate::types::{Network, Upstream};
use futures::future::select_ok;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use rustls::ClientConfig;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long a connection may take, the login included: an upstream may be busy, or ask a resolver that does not answer for
/// the name of each client (`log_hostname`, host names in its access lines).
const ANSWER: Duration = Duration::from_secs(30);
/// After what time without an answer the other network is tried as well: some times what a login takes on a host that is not
/// busy, and little beside a rewind or a copy.
const HEAD_START: Duration = Duration::from_secs(1);
/// How long it is waited for an answer where it only matters whether there is one; and for the other network's, when one has
/// answered: the server is the same, so that one would have answered by then too.
const SIGN: Duration = Duration::from_secs(2);
const AS_WELL: Duration = Duration::from_millis(500);

/// What no setting of the role's or of the database's may change of what is asked.
const OPTIONS: &str = "-c statement_timeout=0 -c search_path=pg_catalog";
/// The SQLSTATE of a password that is not the role's.
const WRONG_PASSWORD: &str = "28P01";

/// What every connection to one upstream has.
struct Knock {
    core: Arc<Core>,
    config: tokio_postgres::Config,
    /// The one with which this node was let in last comes first.
    passwords: Vec<String>,
    tls: Option<ClientConfig>,
    name: String,
}

/// Opens a connection. The network that answered comes first from here on.
pub async fn open(core: &Arc<Core>, upstream: &Upstream) -> Result<Session> {
    let knock = Knock::prepare(core, upstream).await?;
    let addresses = core.networks.ordered(&core.config, upstream).addresses;
    let [first, second] = addresses[..] else {
        let only = addresses.first().copied().ok_or_else(|| EngineError::Refused {
            action: "connect to the upstream",
            why: format!("{} has no address", upstream.node),
        })?;
        return knock.at(only, ANSWER).await;
    };
    let mut before = knock.at(first, ANSWER).boxed();
    let opened = match tokio::time::timeout(HEAD_START, &mut before).await {
        Ok(Ok(session)) => return Ok(session),
        // It is the server that said no, and it would say so again.
        Ok(Err(error)) if error.code().is_some() => return Err(error),
        Ok(Err(refused)) => knock.at(second, ANSWER).await.map(|session| (session, second)).map_err(|error| {
            EngineError::NoNetwork { node: upstream.node.clone(), first: Box::new(refused), second: Box::new(error) }
        }),
        Err(_) => {
            let on = |address| move |session| (session, address);
            let both = [
                before.map(|opened| opened.map(on(first))).boxed(),
                knock.at(second, ANSWER).map(|opened| opened.map(on(second))).boxed(),
            ];
            select_ok(both).await.map(|(opened, _)| opened)
        }
    };
    let (session, address) = opened?;
    if let Some(network) = network_of(&core.config, address)
        && core.networks.prefer(network)
    {
        let (service, upstream) = (&core.service, &upstream.node);
        tracing::warn!(%service, %upstream, "asked over the {network}: nothing answered over the {}", network.other());
    }
    Ok(session)
}

/// Over which of its networks the upstream answers now. A server that refuses has answered.
pub async fn answering(core: &Arc<Core>, upstream: &Upstream) -> Result<Vec<Network>> {
    let knock = Knock::prepare(core, upstream).await?;
    let knock = &knock;
    let ask = upstream.addresses.iter().map(|address| async move {
        let answered = match knock.at(*address, SIGN).await {
            Ok(_) => true,
            Err(error) => error.code().is_some(),
        };
        network_of(&core.config, *address).filter(|_| answered)
    });
    let (mut ask, mut answering) = (ask.collect::<FuturesUnordered<_>>(), Vec::new());
    let mut patience = SIGN;
    while let Ok(Some(answer)) = tokio::time::timeout(patience, ask.next()).await {
        if let Some(network) = answer {
            answering.push(network);
            patience = AS_WELL;
        }
    }
    Ok(answering)
}

impl Knock {
    async fn prepare(core: &Arc<Core>, upstream: &Upstream) -> Result<Knock> {
        let postgresql = core.postgresql();
        let mut config = tokio_postgres::Config::new();
        config.user(access::replication_role(postgresql, &core.config.node)).dbname(HOME).options(OPTIONS);
        config.port(upstream.port).application_name("regent rejoin");
        // What is asked on a connection ends with it, also where its network is lost in silence.
        config.keepalives_idle(settings::KEEPALIVES.idle).keepalives_interval(settings::KEEPALIVES.interval);
        config.keepalives_retries(settings::KEEPALIVES.count).tcp_user_timeout(settings::KEEPALIVES.whole());
        let given = core.current();
        let passwords =
            core.on_disk(move |core| access::passwords_in_order(&given, &core.layout, &core.config.node)).await?;
        let name = core.config.nodes.get(&upstream.node).map_or(upstream.node.as_str(), |node| &node.hostname);
        Ok(Knock {
            core: core.clone(),
            config,
            passwords,
            tls: core.on_disk(tls::client).await?,
            name: name.to_owned(),
        })
    }

    /// With a password that it lets in, this node's server and programs log in from here on.
    async fn at(&self, address: IpAddr, deadline: Duration) -> Result<Session> {
        let mut config = self.config.clone();
        config.host(&self.name).hostaddr(address);
        let mut connected = self.with(&config, self.passwords.first(), deadline).await;
        for other in self.passwords.iter().skip(1) {
            if !connected.as_ref().is_err_and(|error| error.code() == Some(WRONG_PASSWORD)) {
                break;
            }
            connected = self.with(&config, Some(other), deadline).await;
            if connected.is_ok() {
                let (given, password) = (self.core.current(), other.clone());
                let write = move |core: &Core| access::log_in_with(&given, &core.layout, &core.config.node, &password);
                self.core.on_disk(write).await?;
                tracing::warn!(service = %self.core.service, "logs in with the other password of replication_password_file");
            }
        }
        connected
    }

    async fn with(
        &self,
        config: &tokio_postgres::Config,
        password: Option<&String>,
        deadline: Duration,
    ) -> Result<Session> {
        let mut config = config.clone();
        if let Some(password) = password {
            config.password(password);
        }
        Session::connect(config, self.tls.clone(), "connect to the upstream", deadline).await
    }
}
