//! A Gatepost and the upstream behind it, for all scripts with the same setting.
//!
//! The upstream offers XCLIENT: by the client's address, which is each script's own, a connection finds its script. Until then
//! the upstream answers by itself.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use crate::script::{Door, Setting};
use crate::support::gatepost::{Gatepost, Setup};
use crate::support::scripted::EXTENSIONS;
use crate::support::tls;

/// How long one thing may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Connections that wait for their script, by the client that they are for.
#[derive(Default)]
struct Arrivals {
    waiting: Mutex<BTreeMap<IpAddr, VecDeque<Wire>>>,
    came: Condvar,
    /// Whether a script that plays the upstream from its greeting on has begun.
    begun: AtomicBool,
}

pub(crate) struct Stage {
    pub(crate) gatepost: Gatepost,
    arrivals: Arc<Arrivals>,
    raw: bool,
}

impl Stage {
    pub(crate) fn set(setting: &Setting) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let arrivals = Arc::<Arrivals>::default();
        let (setting, theirs) = (setting.clone(), Arc::clone(&arrivals));
        let raw = setting.raw;
        let gatepost = setup(&setting, address);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (setting, arrivals) = (setting.clone(), Arc::clone(&theirs));
                // Whatever goes wrong here, the script that waits for the connection says so.
                thread::spawn(move || drop(receive(&setting, &arrivals, stream)));
            }
        });
        Self { gatepost: gatepost.start(), arrivals, raw }
    }

    /// From here on connections are the script's from their first octet.
    pub(crate) fn begin(&self) {
        self.arrivals.begun.store(true, Ordering::SeqCst);
    }

    /// The next connection that is for `client`.
    pub(crate) fn take(&self, client: IpAddr, patience: Duration) -> Option<Wire> {
        let key = if self.raw { Ipv4Addr::UNSPECIFIED.into() } else { client };
        let waiting = self.arrivals.waiting.lock().unwrap();
        let none =
            |waiting: &mut BTreeMap<IpAddr, VecDeque<Wire>>| waiting.get(&key).is_none_or(VecDeque::is_empty);
        let (mut waiting, _) = self.arrivals.came.wait_timeout_while(waiting, patience, none).unwrap();
        waiting.get_mut(&key)?.pop_front()
    }

    pub(crate) fn is_raw(&self) -> bool {
        self.raw
    }
}

/// The address from which the script with this number connects.
pub(crate) fn client_address(door: Door, number: usize) -> IpAddr {
    let [high, low] = u16::try_from(number + 1).unwrap().to_be_bytes();
    let network = if door == Door::Relay { 2 } else { 1 };
    Ipv4Addr::new(127, network, high, low).into()
}

fn setup(setting: &Setting, upstream: SocketAddr) -> Setup {
    let upstream = if setting.tls { tls::front(upstream) } else { upstream };
    let mut setup = Setup::new(upstream).set("relay.hosts", vec!["127.2.0.0/16"]).limit(10_000);
    if setting.tls {
        let keys = [("tls", "implicit"), ("tls_name", "localhost"), ("ca", "ca.pem")];
        setup = keys.iter().fold(setup, |setup, (key, value)| setup.set(&format!("upstream.{key}"), *value));
    }
    if !setting.senders.is_empty() {
        setup = setup.file("senders", &(setting.senders.join("\n") + "\n"));
    }
    for (key, value) in &setting.config {
        let table: toml::Table =
            format!("value = {value}").parse().unwrap_or_else(|error| panic!("{key}: {error}"));
        setup = setup.set(key, table["value"].clone());
    }
    setup
}

/// Answers by itself until it is known whose the connection is.
fn receive(setting: &Setting, arrivals: &Arrivals, stream: TcpStream) -> io::Result<()> {
    let mut wire = Wire::new(stream)?;
    let arrive = |client: IpAddr, wire: Wire| {
        arrivals.waiting.lock().unwrap().entry(client).or_default().push_back(wire);
        arrivals.came.notify_all();
    };
    if setting.raw && arrivals.begun.load(Ordering::SeqCst) {
        arrive(Ipv4Addr::UNSPECIFIED.into(), wire);
        return Ok(());
    }
    let usual: Vec<String> = EXTENSIONS.iter().map(|&line| line.to_owned()).collect();
    let offers = setting.offers.as_ref().unwrap_or(&usual);
    let offers_later = setting.offers_later.as_ref().unwrap_or(offers);
    let mut client = None;
    wire.send(b"220 mx.example ESMTP\r\n")?;
    loop {
        let line = String::from_utf8_lossy(&wire.line()?.unwrap_or_default()).into_owned();
        let verb = line.split(' ').next().unwrap_or_default();
        match (verb, client) {
            ("EHLO", Some(client)) => {
                wire.send(ehlo(offers_later, false).as_bytes())?;
                arrive(client, wire);
                return Ok(());
            }
            ("EHLO", None) => wire.send(ehlo(offers, !setting.raw).as_bytes())?,
            ("XCLIENT", _) => {
                client = line.split(' ').find_map(|word| word.strip_prefix("ADDR=")?.parse().ok());
                wire.send(b"220 mx.example ESMTP\r\n")?;
            }
            ("", _) => return Ok(()),
            // One that was opened to learn what there is, and might be taken for the script's.
            _ if setting.raw => return Ok(()),
            _ => wire.send(b"250 2.0.0 Ok\r\n")?,
        }
        if setting.raw {
            return Ok(());
        }
    }
}

fn ehlo(offers: &[String], xclient: bool) -> String {
    let mut lines = vec!["mx.example"];
    lines.extend(offers.iter().map(String::as_str));
    if xclient {
        lines.push("XCLIENT ADDR");
    }
    let (last, first) = lines.split_last().unwrap();
    let mut text: String = first.iter().map(|line| format!("250-{line}\r\n")).collect();
    text.push_str(&format!("250 {last}\r\n"));
    text
}

/// A connection from Gatepost.
pub(crate) struct Wire {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Wire {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, unread: Vec::new() })
    }

    pub(crate) fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        self.stream.write_all(octets)
    }

    /// The next line without its CRLF (one that ends with a bare LF keeps it); `None` at the end.
    pub(crate) fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        while !self.unread.contains(&b'\n') {
            if self.read()? == 0 {
                return Ok((!self.unread.is_empty()).then(|| std::mem::take(&mut self.unread)));
            }
        }
        let end = self.unread.iter().position(|&octet| octet == b'\n').unwrap_or_default();
        let rest = self.unread.split_off(end + 1);
        let mut line = std::mem::replace(&mut self.unread, rest);
        if line.ends_with(b"\r\n") {
            line.truncate(line.len() - 2);
        }
        Ok(Some(line))
    }

    /// The octet that comes next, which stays; `None` at the end.
    pub(crate) fn next_octet(&mut self) -> io::Result<Option<u8>> {
        if self.unread.is_empty() {
            self.read()?;
        }
        Ok(self.unread.first().copied())
    }

    /// So many octets, or fewer at the end.
    pub(crate) fn octets(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < count && self.read()? > 0 {}
        let rest = self.unread.split_off(count.min(self.unread.len()));
        Ok(std::mem::replace(&mut self.unread, rest))
    }

    /// All that has come by now.
    pub(crate) fn at_hand(&mut self) -> io::Result<&[u8]> {
        self.stream.set_nonblocking(true)?;
        while matches!(self.read(), Ok(1..)) {}
        self.stream.set_nonblocking(false)?;
        Ok(&self.unread)
    }

    /// All that comes up to the end.
    pub(crate) fn rest(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match self.read() {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
                Err(error) => return Err(error),
            }
        }
        Ok(std::mem::take(&mut self.unread))
    }

    fn read(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 8192];
        let count = self.stream.read(&mut buffer)?;
        self.unread.extend_from_slice(&buffer[..count]);
        Ok(count)
    }
}
