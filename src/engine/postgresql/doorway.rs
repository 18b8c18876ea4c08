//! Whether the postmaster lets anyone in: a connection that asks one question before it says who it is, and leaves.
//!
//! A backend that was forked before the postmaster hung goes on answering, so an open connection proves nothing here.

use super::layout::Layout;
use crate::config::Postgresql;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// PostgreSQL's SSLRequest: length 8, code 80877103. A server answers with one byte, whatever it decides.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Whether a new connection gets an answer in time. Costs the server one fork, no login.
pub async fn answers(layout: &Layout, postgresql: &Postgresql, deadline: Duration) -> bool {
    let socket = layout.socket.join(format!(".s.PGSQL.{}", postgresql.port));
    let ask = async {
        let mut stream = UnixStream::connect(&socket).await?;
        stream.write_all(&SSL_REQUEST).await?;
        let mut answer = [0; 1];
        stream.read_exact(&mut answer).await?;
        Ok::<_, std::io::Error>(())
    };
    matches!(tokio::time::timeout(deadline, ask).await, Ok(Ok(())))
}
