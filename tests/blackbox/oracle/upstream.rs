//! An upstream that tells by an address what it will say, and keeps what it took and whom it failed.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::support::random::Random;

/// What becomes of an address; it begins with this, and the number of the transaction follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Fine,
    /// Taken after a while.
    Late,
    /// A recipient that does not exist.
    Dead,
    /// Refused for now.
    Put,
    /// Refused for good, in two lines.
    Refused,
    /// The first time it is asked, the connection is closed.
    Closes,
    /// The first time it is asked, 421.
    Leaves,
}

impl Kind {
    const ALL: [(Self, &str); 7] = [
        (Self::Fine, "fine"),
        (Self::Late, "late"),
        (Self::Dead, "dead"),
        (Self::Put, "put"),
        (Self::Refused, "refused"),
        (Self::Closes, "closes"),
        (Self::Leaves, "leaves"),
    ];

    /// An address of this kind.
    pub(super) fn address(self, transaction: u64, number: usize) -> String {
        let name = Self::ALL.iter().find(|(kind, _)| *kind == self).unwrap().1;
        format!("{name}-{transaction}-{number}@mta.example")
    }

    fn of(address: &str) -> (Self, u64) {
        let mut parts = address.split('@').next().unwrap().split('-');
        let name = parts.next().unwrap();
        let kind =
            Self::ALL.iter().find(|(_, other)| *other == name).unwrap_or_else(|| panic!("{address}")).0;
        (kind, parts.next().unwrap().parse().unwrap())
    }

    /// The code that a client gets for it, unless the upstream fails.
    pub(super) fn code(self) -> u16 {
        match self {
            Self::Fine | Self::Late | Self::Closes | Self::Leaves => 250,
            Self::Dead => 550,
            Self::Put => 450,
            Self::Refused => 554,
        }
    }
}

/// A message with this field is refused at its end.
pub(super) const UNWANTED: &str = "X-Unwanted: yes\r\n";
/// Of so many DATA without a recipient one is told to go ahead.
const GO_AHEAD_FOR_NOBODY: u64 = 4;
/// Of so many DATA one finds the connection closed.
const CLOSED_AT_DATA: u64 = 30;
/// Of so many replies one comes in two pieces.
const TORN: u64 = 5;

/// A message that it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delivery {
    /// In order of the alphabet.
    pub(super) recipients: Vec<String>,
    pub(super) content: Vec<u8>,
}

#[derive(Default)]
struct Record {
    asked: HashSet<String>,
    /// By subject.
    deliveries: HashMap<String, Vec<Delivery>>,
    failed: HashSet<u64>,
    /// What no client of an upstream may do.
    faults: Vec<String>,
}

#[derive(Clone)]
pub(super) struct Oracle {
    pub(super) address: SocketAddr,
    record: Arc<Mutex<Record>>,
}

impl Oracle {
    pub(super) fn start(seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let oracle = Self { address: listener.local_addr().unwrap(), record: Arc::default() };
        let record = Arc::clone(&oracle.record);
        thread::spawn(move || {
            for (number, stream) in (0..).zip(listener.incoming().map_while(Result::ok)) {
                let record = Arc::clone(&record);
                thread::spawn(move || {
                    // Whatever ends the connection.
                    let _ = Connection::new(&stream, &record, Random::new(seed + 7_919 * number)).serve();
                });
            }
        });
        oracle
    }

    /// The messages of this subject that it took.
    pub(super) fn deliveries(&self, subject: &str) -> Vec<Delivery> {
        self.record.lock().unwrap().deliveries.get(subject).cloned().unwrap_or_default()
    }

    /// All of them, by subject.
    pub(super) fn all(&self) -> HashMap<String, Vec<Delivery>> {
        self.record.lock().unwrap().deliveries.clone()
    }

    /// Whether it closed the connection, or said 421, in this transaction.
    pub(super) fn failed(&self, transaction: u64) -> bool {
        self.record.lock().unwrap().failed.contains(&transaction)
    }

    /// The recipients that it was asked about and that do not exist, but for transactions in which it failed: of those an answer may be
    /// lost.
    pub(super) fn dead(&self) -> HashSet<String> {
        let record = self.record.lock().unwrap();
        let is_dead = |address: &&String| {
            let (kind, transaction) = Kind::of(address);
            kind == Kind::Dead && !record.failed.contains(&transaction)
        };
        record.asked.iter().filter(is_dead).cloned().collect()
    }

    pub(super) fn expect_no_fault(&self) {
        let faults = &self.record.lock().unwrap().faults;
        assert!(faults.is_empty(), "{faults:?}");
    }
}

struct Connection<'a> {
    reader: BufReader<&'a TcpStream>,
    record: &'a Mutex<Record>,
    random: Random,
    pipelining: bool,
    /// The number of the transaction, and who was taken in it.
    mail: Option<(u64, Vec<String>)>,
}

/// Why a connection ends.
type Over = std::io::Error;

impl<'a> Connection<'a> {
    fn new(stream: &'a TcpStream, record: &'a Mutex<Record>, mut random: Random) -> Self {
        let pipelining = !random.once_in(4);
        Self { reader: BufReader::new(stream), record, random, pipelining, mail: None }
    }

    fn serve(&mut self) -> Result<(), Over> {
        self.reader.get_ref().set_nodelay(true)?;
        self.say("220 upstream.example ESMTP")?;
        loop {
            let line = self.line()?;
            let line = std::str::from_utf8(&line).unwrap().trim_end();
            let address = line.split(['<', '>']).nth(1);
            match (line.get(..4).unwrap_or_default(), address) {
                ("EHLO", _) if self.pipelining => {
                    self.say("250-upstream.example\r\n250-PIPELINING\r\n250 8BITMIME")?;
                }
                ("EHLO", _) => self.say("250-upstream.example\r\n250 8BITMIME")?,
                ("MAIL", Some(address)) => self.mail(address)?,
                ("RCPT", Some(address)) => self.rcpt(address)?,
                ("DATA", _) => self.data()?,
                ("RSET", _) => {
                    self.mail = None;
                    self.say("250 2.0.0 Ok")?;
                }
                ("QUIT", _) => return self.say("221 2.0.0 Bye"),
                _ => {
                    self.fault(format!("what is {line}?"));
                    self.say("500 5.5.1 What?")?;
                }
            }
        }
    }

    fn mail(&mut self, address: &str) -> Result<(), Over> {
        let (kind, transaction) = Kind::of(address);
        if self.mail.is_some() {
            self.fault(format!("MAIL in a transaction: {address}"));
        }
        self.fail(kind, transaction, address)?;
        if kind.code() == 250 {
            self.mail = Some((transaction, Vec::new()));
        }
        self.answer(kind, address)
    }

    fn rcpt(&mut self, address: &str) -> Result<(), Over> {
        let (kind, transaction) = Kind::of(address);
        let Some((of, _)) = self.mail else { return self.say("503 5.5.1 MAIL first") };
        if of != transaction {
            self.fault(format!("{address} in transaction {of}"));
        }
        self.fail(kind, transaction, address)?;
        if let Some((_, recipients)) = self.mail.as_mut().filter(|_| kind.code() == 250) {
            recipients.push(address.to_owned());
        }
        self.answer(kind, address)
    }

    /// Ends the connection where the kind has it so.
    fn fail(&mut self, kind: Kind, transaction: u64, address: &str) -> Result<(), Over> {
        let first = self.record.lock().unwrap().asked.insert(address.to_owned());
        if !first || !matches!(kind, Kind::Closes | Kind::Leaves) {
            return Ok(());
        }
        self.record.lock().unwrap().failed.insert(transaction);
        if kind == Kind::Leaves {
            self.say("421 4.3.2 Later")?;
        }
        Err(Over::other("as the address says"))
    }

    fn answer(&mut self, kind: Kind, address: &str) -> Result<(), Over> {
        match kind {
            Kind::Late => {
                thread::sleep(Duration::from_millis(30));
                self.say(&format!("250 2.1.5 Ok, {address}"))
            }
            Kind::Fine | Kind::Closes | Kind::Leaves => self.say(&format!("250 2.1.5 Ok, {address}")),
            Kind::Dead => self.say(&format!("550 5.1.1 {address}: no such user")),
            Kind::Put => self.say(&format!("450 4.2.0 {address}: try again")),
            Kind::Refused => self.say(&format!("554-5.7.1 No.\r\n554 5.7.1 {address}: not wanted")),
        }
    }

    fn data(&mut self) -> Result<(), Over> {
        let Some((transaction, recipients)) = self.mail.take_if(|(_, recipients)| !recipients.is_empty())
        else {
            return self.data_for_nobody();
        };
        if self.random.once_in(CLOSED_AT_DATA) {
            self.record.lock().unwrap().failed.insert(transaction);
            return Err(Over::other("at DATA"));
        }
        self.say("354 Go ahead")?;
        let mut content = Vec::new();
        loop {
            let line = self.line()?;
            if line == b".\r\n" {
                break;
            }
            content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        }
        let text = String::from_utf8_lossy(&content);
        if text.contains(UNWANTED) {
            return self.say("554 5.6.0 Not wanted");
        }
        let subject = text.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap().to_owned();
        let mut delivery = Delivery { recipients, content };
        delivery.recipients.sort();
        self.record.lock().unwrap().deliveries.entry(subject).or_default().push(delivery);
        self.say("250 2.0.0 Ok: queued as 4F1A22C0D")
    }

    /// DATA may come in one batch with recipients that are all refused; content may not. Some upstreams answer 354 all the same
    /// (RFC 2920 3.1).
    fn data_for_nobody(&mut self) -> Result<(), Over> {
        if !self.random.once_in(GO_AHEAD_FOR_NOBODY) {
            return self.say("554 5.5.1 No valid recipients");
        }
        self.say("354 Go ahead")?;
        let line = self.line()?;
        self.fault(format!("{} for nobody", String::from_utf8_lossy(&line)));
        Err(Over::other("content for nobody"))
    }

    fn fault(&self, what: String) {
        self.record.lock().unwrap().faults.push(what);
    }

    fn say(&mut self, reply: &str) -> Result<(), Over> {
        let reply = format!("{reply}\r\n");
        let mut stream = *self.reader.get_ref();
        let (front, rest) = match self.random.once_in(TORN) {
            true => reply.split_at(1 + usize::try_from(self.random.below(reply.len() as u64 - 1)).unwrap()),
            false => ("", reply.as_str()),
        };
        if !front.is_empty() {
            stream.write_all(front.as_bytes())?;
            thread::sleep(Duration::from_millis(2));
        }
        stream.write_all(rest.as_bytes())
    }

    fn line(&mut self) -> Result<Vec<u8>, Over> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line)?;
        if line.ends_with(b"\r\n") { Ok(line) } else { Err(Over::other("closed")) }
    }
}
