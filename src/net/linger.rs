//! How a connection is closed so that the peer still receives the last reply.
//!
//! Closing with unread octets resets the connection, and the peer may then lose what it has not read yet (RFC 1122 4.2.2.13). So
//! the sending side is shut down first, and whatever the peer still sends is read for a moment.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// How long all of it may take.
const LINGER: Duration = Duration::from_secs(1);

/// Sends `last`, shuts the sending side down (TLS close_notify, TCP FIN), and reads until the peer has closed or a second has
/// passed. The stream is to be dropped afterwards; errors no longer matter.
pub async fn linger(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), last: &[u8]) {
    let _ = timeout(LINGER, async {
        stream.write_all(last).await?;
        stream.shutdown().await?;
        let mut rest = [0; 512];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    })
    .await;
}
