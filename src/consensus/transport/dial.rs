//! One connection to one address of one peer: from this node's own address on that network, with small TCP timeouts, and
//! under TLS where that is on. Not here: when to dial again (`path.rs`).

use super::Credentials;
use super::proto::peer_client::PeerClient;
use super::tls;
use crate::types::{NodeName, Span};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tonic::transport::{Channel, Endpoint};

/// Snapshots and calls may be large; nobody but our own nodes can send any.
pub const MESSAGE_LIMIT: usize = 1 << 30;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is not who it must be: worth telling an operator.
    #[error("{0}")]
    Refused(String),
    #[error("no answer within {}", Span(*.0))]
    TimedOut(Duration),
    #[error("{0}")]
    Grpc(#[from] tonic::transport::Error),
}

/// Bytes in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Everything that it takes to dial one address of one peer.
pub struct Dial {
    pub credentials: Credentials,
    pub peer: NodeName,
    pub local: IpAddr,
    pub remote: SocketAddr,
    /// For TCP, TLS and HTTP/2 together.
    pub timeout: Duration,
    /// Unanswered bytes break the connection after this.
    pub silence: Duration,
}

impl Dial {
    /// Connects. The receiver ends when the connection does.
    pub async fn connect(&self) -> Result<(PeerClient<Channel>, oneshot::Receiver<()>), DialError> {
        let connected = tokio::time::timeout(self.timeout, self.connect_now()).await;
        connected.unwrap_or(Err(DialError::TimedOut(self.timeout)))
    }

    async fn connect_now(&self) -> Result<(PeerClient<Channel>, oneshot::Receiver<()>), DialError> {
        let socket = if self.remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // The peer checks that this node comes from an address of its own.
        socket.bind(SocketAddr::new(self.local, 0))?;
        let tcp = socket.connect(self.remote).await?;
        tune(&tcp, self.silence)?;
        let stream: Box<dyn Stream> = match &self.credentials {
            Credentials::Insecure { .. } => Box::new(tcp),
            Credentials::Tls(own) => {
                let connector = own.connector(&self.peer).map_err(io::Error::other)?;
                // Required by TLS, not looked at: the node's name is in the URI, and checked.
                let name = ServerName::IpAddress(self.remote.ip().into());
                let handshake = connector.connect(name, tcp).await;
                Box::new(handshake.map_err(|e| match tls::explain_handshake(&e) {
                    (true, reason) => DialError::Refused(reason),
                    (false, _) => DialError::Io(e),
                })?)
            }
        };
        let (alive, gone) = oneshot::channel();
        let mut stream = Some(TokioIo::new(Watched { stream, _alive: alive }));
        // tonic would dial again by itself; the path does that, so this connector has one connection to give.
        let connector = tower::service_fn(move |_: http::Uri| {
            let stream = stream.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
            async move { stream }
        });
        let endpoint = Endpoint::from_static("http://peer").http2_adaptive_window(true);
        let channel = endpoint.connect_with_connector(connector).await?;
        let client = PeerClient::new(channel);
        Ok((client.max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT), gone))
    }
}

/// Small timeouts: a path that does not answer is given up, there is another one.
pub fn tune(tcp: &TcpStream, silence: Duration) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(tcp);
    socket.set_tcp_user_timeout(Some(silence))?;
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(1)).with_interval(Duration::from_secs(1));
    socket.set_tcp_keepalive(&keepalive.with_retries(3))
}

/// A stream that tells when it is dropped: that is when HTTP/2 has given the connection up.
struct Watched {
    stream: Box<dyn Stream>,
    _alive: oneshot::Sender<()>,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
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
