//! An SMTP client that says exactly what it is told to, octet for octet, cannot hang, and prints the conversation when a test fails.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::{PATIENCE, shown, tls};

/// The address that the tests' `[relay] hosts` names.
pub(crate) const RELAY_HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// One reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) code: u16,
    /// What follows the code and its separator, one a line.
    pub(crate) lines: Vec<String>,
}

impl Reply {
    /// Code and first line: `550 5.1.1 no such user`.
    pub(crate) fn text(&self) -> String {
        format!("{} {}", self.code, self.lines.join("\n"))
    }

    /// Whether an EHLO reply offers `keyword`.
    pub(crate) fn offers(&self, keyword: &str) -> bool {
        self.lines.iter().skip(1).any(|line| line.split(' ').next().unwrap().eq_ignore_ascii_case(keyword))
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    /// While TLS begins.
    Between,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
            Self::Between => unreachable!(),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(octets),
            Self::Tls(stream) => stream.write(octets),
            Self::Between => unreachable!(),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
            Self::Between => unreachable!(),
        }
    }
}

pub(crate) struct Smtp {
    stream: Stream,
    unread: Vec<u8>,
    transcript: Vec<String>,
}

/// What a read met.
#[derive(Debug)]
pub(crate) enum Heard {
    Reply(Reply),
    /// The server closed the connection.
    Closed,
}

impl Smtp {
    /// Connects and reads the greeting.
    pub(crate) fn connect(server: SocketAddr) -> Self {
        Self::connect_from(Ipv4Addr::LOCALHOST.into(), server)
    }

    /// The same from a source address of one's own.
    pub(crate) fn connect_from(source: IpAddr, server: SocketAddr) -> Self {
        let mut client = Self::open(source, server);
        client.expect_reply(220);
        client
    }

    /// Connects and reads nothing.
    pub(crate) fn open(source: IpAddr, server: SocketAddr) -> Self {
        Self {
            stream: Stream::Plain(dial(source, server).unwrap()),
            unread: Vec::new(),
            transcript: Vec::new(),
        }
    }

    /// Connects and reads nothing; there may be nobody.
    pub(crate) fn try_open(server: SocketAddr) -> io::Result<Self> {
        Self::try_open_from(Ipv4Addr::LOCALHOST.into(), server)
    }

    /// The same from a source address of one's own.
    pub(crate) fn try_open_from(source: IpAddr, server: SocketAddr) -> io::Result<Self> {
        let stream = Stream::Plain(dial(source, server)?);
        Ok(Self { stream, unread: Vec::new(), transcript: Vec::new() })
    }

    /// Connects with TLS from the first octet, and reads the greeting.
    pub(crate) fn connect_tls(server: SocketAddr) -> Self {
        let mut client = Self::open(Ipv4Addr::LOCALHOST.into(), server);
        client.begin_tls();
        client.expect_reply(220);
        client
    }

    /// A session on a STARTTLS listener as far as it can be without a password.
    pub(crate) fn secured(server: SocketAddr) -> Self {
        let mut client = Self::connect(server);
        client.ehlo();
        client.starttls();
        client.ehlo();
        client
    }

    /// An authenticated session on a STARTTLS listener.
    pub(crate) fn login(server: SocketAddr, user: &str, password: &str) -> Self {
        let mut client = Self::secured(server);
        client.auth_plain(user, password, 235);
        client
    }

    /// A relay host's session in cleartext.
    pub(crate) fn relay(server: SocketAddr) -> Self {
        let mut client = Self::connect_from(RELAY_HOST, server);
        client.ehlo();
        client
    }

    pub(crate) fn ehlo(&mut self) -> Reply {
        self.expect("EHLO client.example", 250)
    }

    pub(crate) fn starttls(&mut self) {
        self.expect("STARTTLS", 220);
        self.begin_tls();
    }

    pub(crate) fn begin_tls(&mut self) {
        self.try_begin_tls().unwrap_or_else(|error| panic!("TLS handshake: {error}"));
    }

    /// The same as somebody else, with a server of another name.
    pub(crate) fn begin_tls_with(&mut self, config: Arc<ClientConfig>, name: ServerName<'static>) {
        self.try_begin_tls_with(config, name).unwrap_or_else(|error| panic!("TLS handshake: {error}"));
    }

    /// The server's certificate, as DER.
    pub(crate) fn certificate(&self) -> Vec<u8> {
        let Stream::Tls(tls) = &self.stream else { panic!("no TLS") };
        tls.conn.peer_certificates().unwrap()[0].to_vec()
    }

    /// Whether the TLS session goes on with the keys of an earlier one.
    pub(crate) fn is_resumed(&self) -> bool {
        let Stream::Tls(tls) = &self.stream else { panic!("no TLS") };
        tls.conn.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    /// `tls-exporter` of RFC 9266.
    pub(crate) fn channel_binding(&self) -> Vec<u8> {
        let Stream::Tls(tls) = &self.stream else { panic!("no TLS") };
        tls.conn.export_keying_material(vec![0; 32], b"EXPORTER-Channel-Binding", Some(b"")).unwrap()
    }

    /// The server may have closed.
    pub(crate) fn try_begin_tls(&mut self) -> io::Result<()> {
        self.try_begin_tls_with(tls::client(), ServerName::try_from("localhost").unwrap())
    }

    /// The server may have closed.
    pub(crate) fn try_begin_tls_with(
        &mut self,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<()> {
        assert!(self.unread.is_empty(), "cleartext behind the reply to STARTTLS: {}", shown(&self.unread));
        let Stream::Plain(mut tcp) = std::mem::replace(&mut self.stream, Stream::Between) else {
            panic!("TLS within TLS")
        };
        let mut tls = ClientConnection::new(config, name).unwrap();
        while tls.is_handshaking() {
            if tls.complete_io(&mut tcp)? == (0, 0) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.transcript.push(format!("== {:?}", tls.protocol_version().unwrap()));
        self.stream = Stream::Tls(Box::new(StreamOwned::new(tls, tcp)));
        Ok(())
    }

    pub(crate) fn auth_plain(&mut self, user: &str, password: &str, code: u16) -> Reply {
        let reply = self.try_auth_plain(user, password);
        assert_eq!(reply.code, code, "AUTH of {user}: {}", reply.text());
        reply
    }

    pub(crate) fn try_auth_plain(&mut self, user: &str, password: &str) -> Reply {
        self.ask(&format!("AUTH PLAIN {}", STANDARD.encode(format!("\0{user}\0{password}"))))
    }

    /// Sends octets as they are.
    pub(crate) fn send(&mut self, octets: &[u8]) {
        self.try_send(octets).unwrap_or_else(|error| panic!("sending: {error}"));
    }

    /// Sends octets as they are; the server may have closed.
    pub(crate) fn try_send(&mut self, octets: &[u8]) -> io::Result<()> {
        let beginning = &octets[..octets.len().min(300)];
        let more = if octets.len() > 300 { format!(" ... {} octets", octets.len()) } else { String::new() };
        self.transcript.push(format!("C: {}{more}", shown(beginning)));
        self.stream.write_all(octets)?;
        self.stream.flush()
    }

    /// Closes this half of a connection in clear.
    pub(crate) fn end(&mut self) {
        let Stream::Plain(stream) = &self.stream else { unreachable!("TLS ends otherwise") };
        stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Sends a line and reads the reply to it.
    pub(crate) fn ask(&mut self, line: &str) -> Reply {
        self.send(format!("{line}\r\n").as_bytes());
        self.reply()
    }

    /// Sends a line; the reply must have this code.
    pub(crate) fn expect(&mut self, line: &str, code: u16) -> Reply {
        self.send(format!("{line}\r\n").as_bytes());
        self.expect_reply(code)
    }

    /// The next reply must have this code.
    pub(crate) fn expect_reply(&mut self, code: u16) -> Reply {
        let reply = self.reply();
        assert_eq!(reply.code, code, "reply: {}", reply.text());
        reply
    }

    /// The next reply.
    pub(crate) fn reply(&mut self) -> Reply {
        match self.hear() {
            Heard::Reply(reply) => reply,
            Heard::Closed => panic!("the server closed the connection instead of a reply"),
        }
    }

    /// Nothing but the end of the connection may come.
    pub(crate) fn expect_close(&mut self) {
        if let Heard::Reply(reply) = self.hear() {
            panic!("expected the connection to be closed, got {}", reply.text());
        }
    }

    /// The next reply, or the end.
    pub(crate) fn hear(&mut self) -> Heard {
        match self.try_hear() {
            Ok(heard) => heard,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                panic!("no reply within the deadline")
            }
            Err(error) => {
                self.transcript.push(format!("S: {error}"));
                Heard::Closed
            }
        }
    }

    /// The next reply, the end, or what went wrong.
    pub(crate) fn try_hear(&mut self) -> io::Result<Heard> {
        let mut lines = Vec::new();
        loop {
            let Some(line) = self.line()? else { return Ok(Heard::Closed) };
            assert!(line.len() >= 3 && line.is_char_boundary(3), "no reply line: {line}");
            let code = line[..3].parse().unwrap_or_else(|_| panic!("no reply line: {line}"));
            lines.push(line.get(4..).unwrap_or_default().to_owned());
            match line.as_bytes().get(3) {
                Some(b'-') => {}
                Some(b' ') | None => return Ok(Heard::Reply(Reply { code, lines })),
                Some(_) => panic!("no reply line: {line}"),
            }
        }
    }

    /// One line of a reply, its CRLF taken off.
    pub(crate) fn line(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\r\n") {
                let rest = self.unread.split_off(end + 2);
                let mut line = std::mem::replace(&mut self.unread, rest);
                line.truncate(end);
                self.transcript.push(format!("S: {}", shown(&line)));
                return Ok(Some(String::from_utf8(line).expect("a reply is UTF-8")));
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer)? {
                0 if self.unread.is_empty() => {
                    self.transcript.push("S closed".to_owned());
                    return Ok(None);
                }
                0 => {
                    return Err(io::Error::other(format!(
                        "closed in the midst of a line: {}",
                        shown(&self.unread)
                    )));
                }
                count => self.unread.extend_from_slice(&buffer[..count]),
            }
        }
    }

    /// How long to wait for a reply.
    pub(crate) fn set_patience(&mut self, patience: Duration) {
        let tcp = match &self.stream {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => &tls.sock,
            Stream::Between => unreachable!(),
        };
        tcp.set_read_timeout(Some(patience)).unwrap();
    }

    /// MAIL, one RCPT each, DATA, the message: all must be taken. Returns the reply to the end of data.
    pub(crate) fn submit(&mut self, sender: &str, recipients: &[&str], message: &[u8]) -> Reply {
        self.expect(&format!("MAIL FROM:<{sender}>"), 250);
        for recipient in recipients {
            self.expect(&format!("RCPT TO:<{recipient}>"), 250);
        }
        self.data(message, 250)
    }

    /// DATA and the message, which is dot-stuffed and ended here.
    pub(crate) fn data(&mut self, message: &[u8], code: u16) -> Reply {
        self.expect("DATA", 354);
        self.send(&stuffed(message));
        self.expect_reply(code)
    }

    pub(crate) fn quit(mut self) {
        self.expect("QUIT", 221);
        self.expect_close();
    }

    /// Asks about `count` recipients that do not exist; returns the replies.
    pub(crate) fn harvest(&mut self, count: usize, domain: &str) -> Vec<Reply> {
        (0..count).map(|number| self.ask(&format!("RCPT TO:<nobody-{number}@{domain}>"))).collect()
    }
}

impl Drop for Smtp {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- conversation\n{}\n", self.transcript.join("\n"));
        }
    }
}

/// Mail data as it goes over the wire, the end of data included (RFC 5321 4.5.2).
pub(crate) fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(message.len() + 8);
    let mut at_line_start = true;
    for &octet in message {
        if at_line_start && octet == b'.' {
            wire.push(b'.');
        }
        wire.push(octet);
        at_line_start = octet == b'\n';
    }
    if !at_line_start {
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b".\r\n");
    wire
}

/// The standard library cannot choose a source address.
fn dial(source: IpAddr, server: SocketAddr) -> io::Result<TcpStream> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        // Port 0 in bind would use up ports per source address; this leaves the choice to connect.
        if source != Ipv4Addr::LOCALHOST {
            socket.bind((source, 0).into())?;
        }
        tokio::time::timeout(PATIENCE, socket.connect(server)).await?
    })?;
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The message that most tests send.
pub(crate) fn message(subject: &str) -> Vec<u8> {
    format!(
        "Date: Tue, 24 Nov 2026 16:05:28 +0000\r\nFrom: <alice@mta.example>\r\nTo: <bob@mta.example>\r\nSubject: {subject}\r\n\
         Message-ID: <{}@client.example>\r\n\r\nHello.\r\n.a line that begins with a dot\r\n..two\r\n\r\n\x20trailing blank \r\n",
        subject.replace(' ', ".")
    )
    .into_bytes()
}
