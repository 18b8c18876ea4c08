//! Listens on both networks, makes sure who asks, and hands the message on. What is refused is noted for `status`.

#![expect(clippy::disallowed_methods, reason = "when to try to listen again: plain I/O")]

use super::dial::{self, MESSAGE_LIMIT, Stream};
use super::proto::peer_server::{Peer as PeerService, PeerServer};
use super::proto::{Answer, CallRequest, HelloReply, HelloRequest, RaftRequest};
use super::refusals::Refusals;
use super::{Addresses, Credentials, HEADER_CLUSTER, HEADER_FOUNDER, HEADER_NODE, Identity, identity, tls};
use crate::errors::with_causes;
use crate::types::{ClusterId, NodeName};
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status};

/// How long a new connection may take to prove itself.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// A network whose address cannot be bound yet is tried again this often.
const REBIND: Duration = Duration::from_secs(1);

/// What is done with the messages.
pub trait Service: Send + Sync + 'static {
    fn hello(&self) -> HelloReply;
    /// `Err` is the reason why not, for the peer's log.
    fn raft(&self, from: NodeName, request: RaftRequest) -> BoxFuture<'_, Result<Vec<u8>, String>>;
    fn call(&self, from: NodeName, request: CallRequest) -> BoxFuture<'_, Result<Vec<u8>, String>>;
    /// A peer has proved who it is.
    fn seen(&self, from: &NodeName);
    /// The mark of `node`'s data directory, where the cluster's founding is known.
    fn founder_of(&self, node: &NodeName) -> Option<String>;
    /// Why a network cannot be listened on; `None` when it can again.
    fn listening(&self, address: SocketAddr, error: Option<String>);
}

/// Who may come, and from where.
pub struct Gate {
    pub credentials: Credentials,
    pub me: Identity,
    pub nodes: BTreeMap<NodeName, Addresses>,
    pub refusals: Arc<Refusals>,
    pub silence: Duration,
}

/// Serves until `stop`: then no connection is taken any more, and the open ones end after what they are at.
pub async fn serve(gate: Arc<Gate>, service: Arc<dyn Service>, stop: oneshot::Receiver<()>) {
    let (accepted, incoming) = mpsc::channel::<Result<Accepted, io::Error>>(64);
    let own = gate.nodes[&gate.me.node];
    // Weak: a connection must not keep a node alive that has been stopped.
    let handler = Handler { gate: gate.clone(), service: Arc::downgrade(&service) };
    let server = PeerServer::new(handler);
    let server = server.max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT);
    let stopped = async {
        // A sender that was dropped means the same.
        let _ = stop.await;
    };
    let grpc = tonic::transport::Server::builder()
        .http2_adaptive_window(Some(true))
        .add_service(server)
        .serve_with_incoming_shutdown(ReceiverStream::new(incoming), stopped);
    tokio::select! {
        ended = grpc => {
            let error = ended.err().map(|error| with_causes(&error));
            tracing::debug!(error, "the gRPC server has ended");
        }
        () = listen(own.primary, gate.clone(), service.clone(), accepted.clone()) => {}
        () = listen(own.secondary, gate, service, accepted) => {}
    }
}

type Incoming = mpsc::Sender<Result<Accepted, io::Error>>;

async fn listen(address: SocketAddr, gate: Arc<Gate>, service: Arc<dyn Service>, incoming: Incoming) {
    loop {
        match bind(address) {
            Ok(listener) => {
                service.listening(address, None);
                let error = accept_all(&listener, &gate, &incoming).await;
                service.listening(address, Some(error.to_string()));
            }
            Err(error) => service.listening(address, Some(error.to_string())),
        }
        tokio::time::sleep(REBIND).await;
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    // The network may come up later than this daemon.
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    TcpListener::from_std(socket.into())
}

async fn accept_all(listener: &TcpListener, gate: &Arc<Gate>, incoming: &Incoming) -> io::Error {
    loop {
        match listener.accept().await {
            Ok((tcp, from)) => {
                let (gate, incoming) = (gate.clone(), incoming.clone());
                // A slow or hostile handshake keeps nobody else waiting.
                tokio::spawn(async move {
                    if let Ok(Some(accepted)) = tokio::time::timeout(HANDSHAKE, gate.admit(tcp, from.ip())).await {
                        // The server is gone during a shutdown.
                        let _ = incoming.send(Ok(accepted)).await;
                    }
                });
            }
            Err(error) => return error,
        }
    }
}

impl Gate {
    async fn admit(&self, tcp: TcpStream, address: IpAddr) -> Option<Accepted> {
        dial::tune(&tcp, self.silence).ok()?;
        if !self.nodes.values().any(|node| node.has(address)) {
            self.refusals.note("unknown", address, "no configured node has this address");
            return None;
        }
        match &self.credentials {
            Credentials::Insecure { .. } => {
                Some(Accepted { stream: Box::new(tcp), from: From { address, name: None } })
            }
            Credentials::Tls(own) => match own.acceptor().accept(tcp).await {
                Ok(stream) => {
                    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                    // The handshake has checked it: the name is there.
                    let name = certificate.and_then(|c| identity::node_of(c).ok()).map(|(_, name)| name)?;
                    Some(Accepted { stream: Box::new(stream), from: From { address, name: Some(name) } })
                }
                Err(error) => {
                    let (refused, reason) = tls::explain_handshake(&error);
                    if refused {
                        self.refusals.note(&self.name_of(address), address, &reason);
                    }
                    None
                }
            },
        }
    }

    fn name_of(&self, address: IpAddr) -> String {
        let named = self.nodes.iter().find(|(_, node)| node.has(address));
        named.map_or_else(|| "unknown".into(), |(name, _)| format!("{name}?"))
    }

    /// Who sent the request, or why it is refused.
    fn identify<T>(
        &self,
        request: &Request<T>,
        founder: impl Fn(&NodeName) -> Option<String>,
    ) -> Result<NodeName, Status> {
        let Some(from) = request.extensions().get::<From>() else {
            return Err(Status::internal("a connection without its origin"));
        };
        let header = |name| request.metadata().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let claimed = header(HEADER_NODE);
        let refuse = |reason: String| {
            self.refusals.note(if claimed.is_empty() { "unknown" } else { claimed }, from.address, &reason);
            Err(Status::permission_denied(reason))
        };
        let theirs = ClusterId(header(HEADER_CLUSTER).to_owned());
        if theirs != self.me.cluster {
            return refuse(format!("it belongs to cluster {theirs}, this is {}", self.me.cluster));
        }
        let Ok(name) = claimed.parse::<NodeName>() else {
            return refuse("it gives no usable name".into());
        };
        if let Some(certified) = &from.name
            && *certified != name
        {
            return refuse(format!("it calls itself {name}, but its certificate is for another node ({certified})"));
        }
        let Some(addresses) = self.nodes.get(&name) else {
            return refuse(format!("{name} is not a configured node"));
        };
        if name == self.me.node {
            return refuse(format!("it has this node's own name ({name}): two hosts must not share a name"));
        }
        if !addresses.has(from.address) {
            let (primary, secondary) = (addresses.primary.ip(), addresses.secondary.ip());
            return refuse(format!("it comes from an address that is not {name}'s ({primary}, {secondary})"));
        }
        match founder(&name) {
            Some(known) if known != header(HEADER_FOUNDER) => refuse(format!(
                "it has another data directory than the {name} that founded the cluster: its disk was replaced, or two \
                 hosts share the name; remove it from the cluster and add it again"
            )),
            _ => Ok(name),
        }
    }
}

#[derive(Clone)]
struct From {
    address: IpAddr,
    /// From the certificate.
    name: Option<NodeName>,
}

/// A connection whose certificate was checked.
struct Accepted {
    stream: Box<dyn Stream>,
    from: From,
}

impl Connected for Accepted {
    type ConnectInfo = From;
    fn connect_info(&self) -> From {
        self.from.clone()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

struct Handler {
    gate: Arc<Gate>,
    service: Weak<dyn Service>,
}

impl Handler {
    fn identify<T>(&self, request: &Request<T>) -> Result<(NodeName, Arc<dyn Service>), Status> {
        let service = self.service.upgrade().ok_or_else(|| Status::unavailable("this node is shutting down"))?;
        let from = self.gate.identify(request, |node| service.founder_of(node))?;
        service.seen(&from);
        Ok((from, service))
    }
}

fn answer(result: Result<Vec<u8>, String>) -> Response<Answer> {
    Response::new(match result {
        Ok(body) => Answer { body, refused: String::new() },
        Err(refused) => Answer { body: Vec::new(), refused },
    })
}

#[tonic::async_trait]
impl PeerService for Handler {
    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let (_, service) = self.identify(&request)?;
        Ok(Response::new(service.hello()))
    }

    async fn raft(&self, request: Request<RaftRequest>) -> Result<Response<Answer>, Status> {
        let (from, service) = self.identify(&request)?;
        Ok(answer(service.raft(from, request.into_inner()).await))
    }

    async fn call(&self, request: Request<CallRequest>) -> Result<Response<Answer>, Status> {
        let (from, service) = self.identify(&request)?;
        Ok(answer(service.call(from, request.into_inner()).await))
    }
}
