//! The practice MTA: a small, honest SMTP server (RFC 5321) for the demo, only on the IPv4 loopback address.
//!
//! It looks up every recipient in its [`Directory`] at RCPT, which is all that Gatepost needs of an upstream, offers
//! XCLIENT, and keeps accepted messages in bounded memory. It relays nothing and writes nothing to disk.

mod dialogue;
mod directory;
mod letters;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use dialogue::{Dialogue, Next};
pub use directory::Directory;
pub use letters::{Letter, Letters};

/// The most connections at once; Gatepost opens at most 90 by default.
const MAX_CONNECTIONS: usize = 200;
/// How long a client may be silent (RFC 5321 4.5.3.2.7).
const IDLE: Duration = Duration::from_secs(300);
/// The most octets read at once.
const READ_AT_ONCE: usize = 16 * 1_024;
/// How long to wait if the system could not accept a connection.
const BACK_OFF: Duration = Duration::from_millis(100);

/// The running server. Dropping it ends all its connections.
pub struct Practice {
    address: SocketAddr,
    letters: Letters,
    _tasks: JoinSet<()>,
}

impl Practice {
    /// Binds any free port of the loopback address and accepts clients.
    ///
    /// # Errors
    /// No port can be bound.
    pub async fn start(directory: Directory) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let letters = Letters::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::new(directory), letters.clone()));
        Ok(Self { address, letters, _tasks: tasks })
    }

    /// The address it listens on.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The accepted messages.
    pub const fn letters(&self) -> &Letters {
        &self.letters
    }
}

async fn accept(listener: TcpListener, directory: Arc<Directory>, letters: Letters) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut sessions = JoinSet::new();
    loop {
        // Connections over the limit wait in the kernel's queue.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let dialogue = Dialogue::new(Arc::clone(&directory), letters.clone());
                sessions.spawn(async move {
                    // A connection that fails is its client's concern.
                    let _ = serve(stream, dialogue).await;
                    drop(place);
                });
            }
            Err(_) => tokio::time::sleep(BACK_OFF).await,
        }
        while sessions.try_join_next().is_some() {}
    }
}

/// Serves one client to the end. The replies to a pipelined batch leave in one write.
async fn serve(mut stream: TcpStream, mut dialogue: Dialogue) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut replies = Vec::new();
    dialogue.greet(&mut replies);
    let mut buffered = Vec::new();
    let mut piece = vec![0; READ_AT_ONCE];
    loop {
        let next = dialogue.take(&mut buffered, &mut replies);
        stream.write_all(&replies).await?;
        replies.clear();
        if next == Next::Close {
            return stream.shutdown().await;
        }
        let Ok(read) = timeout(IDLE, stream.read(&mut piece)).await else {
            dialogue.timed_out(&mut replies);
            stream.write_all(&replies).await?;
            return stream.shutdown().await;
        };
        match read? {
            0 => return Ok(()),
            octets => buffered.extend_from_slice(piece.get(..octets).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    async fn practice() -> Practice {
        Practice::start(Directory::new(&["example.org"], &["ada@example.org", "bob@example.org"]))
            .await
            .unwrap()
    }

    /// Sends all pieces and reads to the end.
    async fn converse(practice: &Practice, pieces: &[&str]) -> String {
        let conversation = async {
            let mut stream = TcpStream::connect(practice.address()).await.unwrap();
            for piece in pieces {
                stream.write_all(piece.as_bytes()).await.unwrap();
            }
            let mut replies = String::new();
            stream.read_to_string(&mut replies).await.unwrap();
            replies
        };
        timeout(DEADLINE, conversation).await.expect("no end of the conversation")
    }

    #[tokio::test]
    async fn on_loopback_alone() {
        assert_eq!(practice().await.address().ip(), Ipv4Addr::LOCALHOST);
    }

    #[tokio::test]
    async fn a_message_over_a_socket() {
        let practice = practice().await;
        let replies = converse(
            &practice,
            &[
                "EHLO test\r\nMAIL FROM:<x@example.net>\r\nRCPT TO:<ada@example.org>\r\nRCPT TO:<no@example.org>\r\nDA",
                "TA\r\nSubject: hi\r\n\r\n..one\r\n.\r",
                "\nQUIT\r\n",
            ],
        )
        .await;
        let lines: Vec<_> = replies.lines().filter(|line| line.as_bytes()[3] == b' ').collect();
        let starts = [
            "220 ",
            "250 ",
            "250 2.1.0 ",
            "250 2.1.5 ",
            "550 5.1.1 <no@",
            "354 ",
            "250 2.0.0 Ok: queued as ",
            "221 ",
        ];
        assert_eq!(lines.len(), starts.len(), "{replies}");
        for (line, start) in lines.iter().zip(starts) {
            assert!(line.starts_with(start), "{line}");
        }
        let letter =
            practice.letters().wait_for(DEADLINE, |letter| letter.is_to("ada@example.org")).await.unwrap();
        assert_eq!(letter.content, b"Subject: hi\r\n\r\n.one\r\n");
        assert!(lines[6].ends_with(&letter.queue_id));
    }

    #[tokio::test]
    async fn sessions_beside_each_other() {
        let practice = practice().await;
        let one = "EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n";
        let practice = Arc::new(practice);
        let mut clients = JoinSet::new();
        for _ in 0..20 {
            let practice = Arc::clone(&practice);
            clients.spawn(async move { converse(&practice, &[one]).await });
        }
        assert!(clients.join_all().await.iter().all(|replies| replies.contains("queued as")));
        assert_eq!(practice.letters().total(), 20);
    }
}
