//! An upstream that does as it is told, and keeps every octet that it received.
//!
//! It is strict where Gatepost must be: nothing but CRLF ends a line and CRLF.CRLF the data; what else comes is kept for the
//! assertions, which are made on the octets.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::{PATIENCE, shown, wait_for};

/// What the script is asked about.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    /// Counts connections, from 0.
    pub(crate) connection: usize,
    /// `CONNECT`, a command's verb, or `.` for the end of data.
    pub(crate) verb: &'a str,
    /// The whole line, without its CRLF.
    pub(crate) line: &'a str,
    /// How many commands with this verb this connection had before.
    pub(crate) before: usize,
}

impl Asked<'_> {
    /// What stands in the angle brackets.
    pub(crate) fn path(&self) -> &str {
        let rest = self.line.split_once('<').map_or("", |(_, rest)| rest);
        rest.rsplit_once('>').map_or(rest, |(path, _)| path)
    }
}

/// What it does.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// These octets and CRLF.
    Reply(String),
    /// The same, each octet in a segment of its own.
    Dripped(String),
    /// These octets and CRLF, and the connection is closed.
    Last(String),
    /// These octets alone, and the connection is closed.
    Torn(String),
    /// It counts as answered so, and the connection is closed before.
    Lost(String),
    /// The connection is closed.
    Close,
    /// Nothing, for ever.
    Silence,
}

impl Answer {
    pub(crate) fn reply(text: &str) -> Option<Self> {
        Some(Self::Reply(text.to_owned()))
    }
}

/// `None`: the default, see [`default_answer`].
type Script = dyn Fn(&Asked<'_>) -> Option<Answer> + Send + Sync;

/// One message, complete or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Transaction {
    pub(crate) connection: usize,
    /// The MAIL line.
    pub(crate) mail: String,
    /// Those RCPT lines that were answered 250.
    pub(crate) recipients: Vec<String>,
    /// Everything after the 354, as it came over the wire, the end of data not included.
    pub(crate) data: Vec<u8>,
    /// The end of data, or the last chunk, came and was answered 250.
    pub(crate) taken: bool,
}

impl Transaction {
    /// The data with the dots taken off.
    pub(crate) fn message(&self) -> Vec<u8> {
        let mut message = Vec::with_capacity(self.data.len());
        for line in self.data.split_inclusive(|&octet| octet == b'\n') {
            message.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
        }
        message
    }
}

#[derive(Default)]
struct Record {
    /// Every octet received, per connection.
    octets: Vec<Vec<u8>>,
    transactions: Vec<Transaction>,
    /// Connections that are open.
    open: Vec<Option<TcpStream>>,
}

struct Shared {
    script: Box<Script>,
    record: Mutex<Record>,
    extensions: Vec<&'static str>,
    ends: AtomicBool,
    /// Where set, message octets are counted and thrown away.
    forgets_data: bool,
    data_octets: AtomicUsize,
}

pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

/// What it offers unless told otherwise.
pub(crate) const EXTENSIONS: &[&str] =
    &["PIPELINING", "SIZE 104857600", "8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8", "DSN"];

/// 550 5.1.1 to recipients that begin with `nobody`, 250 to all else.
fn default_answer(asked: &Asked<'_>) -> Answer {
    let reply = match asked.verb {
        "CONNECT" => "220 mx.scripted.example ESMTP".to_owned(),
        "MAIL" => "250 2.1.0 Sender ok".to_owned(),
        "RCPT" if asked.path().starts_with("nobody") => {
            format!("550 5.1.1 <{}>: Recipient address rejected: User unknown", asked.path())
        }
        "RCPT" => format!("250 2.1.5 <{}> Recipient ok", asked.path()),
        "DATA" => "354 Go on".to_owned(),
        "." => format!("250 2.0.0 Ok: queued as {:010X}", 0x00AB_C000_1000_u64 + asked.before as u64 * 0x1F),
        "QUIT" => return Answer::Last("221 2.0.0 Bye".to_owned()),
        "XCLIENT" => "220 mx.scripted.example ESMTP".to_owned(),
        _ => "250 2.0.0 Ok".to_owned(),
    };
    Answer::Reply(reply)
}

impl Scripted {
    /// One that takes all but `nobody...`.
    pub(crate) fn start() -> Self {
        Self::with(|_| None)
    }

    /// One that follows `script`.
    pub(crate) fn with(script: impl Fn(&Asked<'_>) -> Option<Answer> + Send + Sync + 'static) -> Self {
        Self::launch(EXTENSIONS.to_vec(), false, script)
    }

    /// One that offers these extensions instead.
    pub(crate) fn offering(
        extensions: Vec<&'static str>,
        script: impl Fn(&Asked<'_>) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        Self::launch(extensions, false, script)
    }

    /// One that keeps no mail data, for messages that are big.
    pub(crate) fn forgetful() -> Self {
        Self::launch(EXTENSIONS.to_vec(), true, |_| None)
    }

    fn launch(
        extensions: Vec<&'static str>,
        forgets_data: bool,
        script: impl Fn(&Asked<'_>) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            record: Mutex::default(),
            extensions,
            ends: AtomicBool::new(false),
            forgets_data,
            data_octets: AtomicUsize::new(0),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.ends.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let shared = Arc::clone(&accepting);
                thread::spawn(move || Conversation::hold(&shared, stream));
            }
        });
        Self { address, shared }
    }

    /// All transactions that began, in the order of their MAIL.
    pub(crate) fn transactions(&self) -> Vec<Transaction> {
        self.shared.record.lock().unwrap().transactions.clone()
    }

    /// The messages that it took.
    pub(crate) fn taken(&self) -> Vec<Transaction> {
        self.transactions().into_iter().filter(|transaction| transaction.taken).collect()
    }

    /// The messages that it took since the last call; it forgets them, and all that it received.
    pub(crate) fn collect_taken(&self) -> Vec<Vec<u8>> {
        let mut record = self.shared.record.lock().unwrap();
        record.octets.iter_mut().for_each(|octets| *octets = Vec::new());
        let taken = record.transactions.iter_mut().filter(|one| one.taken && !one.data.is_empty());
        taken.map(|one| std::mem::take(&mut one.data)).collect()
    }

    /// Waits until it has taken `count` messages.
    pub(crate) fn expect_taken(&self, count: usize) -> Vec<Transaction> {
        wait_for(PATIENCE, || Some(self.taken()).filter(|taken| taken.len() >= count))
            .unwrap_or_else(|| panic!("{count} messages did not come, {} did", self.taken().len()))
    }

    /// Every octet received, one entry a connection.
    pub(crate) fn octets(&self) -> Vec<Vec<u8>> {
        self.shared.record.lock().unwrap().octets.clone()
    }

    /// All lines that begin with `verb`, over all connections.
    pub(crate) fn lines(&self, verb: &str) -> Vec<String> {
        let octets = self.octets();
        let all = octets.iter().flat_map(|one| one.split(|&octet| octet == b'\n'));
        all.map(|line| String::from_utf8_lossy(line).trim_end().to_owned())
            .filter(|line| line.starts_with(verb))
            .collect()
    }

    /// Message octets received, where it forgets them.
    pub(crate) fn data_octets(&self) -> usize {
        self.shared.data_octets.load(Ordering::SeqCst)
    }

    /// Connections that are open now.
    pub(crate) fn open_connections(&self) -> usize {
        self.shared.record.lock().unwrap().open.iter().flatten().count()
    }

    /// Stops listening and drops every connection: the upstream is down.
    pub(crate) fn stop(&self) {
        if !self.shared.ends.swap(true, Ordering::SeqCst) {
            // Wakes the accepting thread, whose listener closes with it.
            drop(TcpStream::connect_timeout(&self.address, Duration::from_secs(1)));
        }
        self.hang_up();
    }

    /// Drops every connection, and takes new ones.
    pub(crate) fn hang_up(&self) {
        for stream in self.shared.record.lock().unwrap().open.iter().flatten() {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- what the upstream received");
            for (number, octets) in self.octets().iter().enumerate() {
                let beginning = &octets[..octets.len().min(4000)];
                eprintln!("connection {number}: {}", shown(beginning).replace("\\r\\n", "\\r\\n\n    "));
            }
        }
        self.stop();
    }
}

/// Copies what is read into the record.
struct Recorder<'a> {
    stream: TcpStream,
    shared: &'a Shared,
    connection: usize,
}

impl Read for Recorder<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.stream.read(buffer)?;
        if !self.shared.forgets_data {
            self.shared.record.lock().unwrap().octets[self.connection].extend_from_slice(&buffer[..count]);
        }
        Ok(count)
    }
}

struct Conversation<'a> {
    shared: &'a Shared,
    connection: usize,
    reader: BufReader<Recorder<'a>>,
    counts: std::collections::HashMap<String, usize>,
    /// The index of the transaction under way.
    transaction: Option<usize>,
}

/// The conversation is over.
struct Over;

/// Whether the reply to this says if the message was taken.
fn ends_message(verb: &str, line: &str) -> bool {
    let is_last = || line.split(' ').nth(2).is_some_and(|word| word.eq_ignore_ascii_case("LAST"));
    verb == "." || verb == "BDAT" && is_last()
}

impl Conversation<'_> {
    fn hold(shared: &Shared, stream: TcpStream) {
        let connection = {
            let mut record = shared.record.lock().unwrap();
            // Accepted before it stopped, and not among those that were hung up.
            if shared.ends.load(Ordering::SeqCst) {
                return;
            }
            record.octets.push(Vec::new());
            record.open.push(Some(stream.try_clone().unwrap()));
            record.octets.len() - 1
        };
        stream.set_nodelay(true).unwrap();
        let reader = BufReader::with_capacity(65536, Recorder { stream, shared, connection });
        let mut conversation = Conversation {
            shared,
            connection,
            reader,
            counts: std::collections::HashMap::new(),
            transaction: None,
        };
        while conversation.step().is_ok() {}
        drop(conversation.reader.get_ref().stream.shutdown(Shutdown::Both));
        shared.record.lock().unwrap().open[connection] = None;
    }

    fn step(&mut self) -> Result<(), Over> {
        if self.counts.is_empty() {
            self.answer("CONNECT", "")?;
        }
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            if self.reader.read_until(b'\n', &mut line).map_err(|_| Over)? == 0 {
                return Err(Over);
            }
        }
        line.truncate(line.len() - 2);
        let line = String::from_utf8_lossy(&line).into_owned();
        let verb = line.split(' ').next().unwrap().to_ascii_uppercase();
        if verb == "BDAT" {
            self.chunk(&line)?;
        }
        let reply = self.answer(&verb, &line)?;
        self.account(&verb, &line, &reply);
        if verb == "DATA" && reply.starts_with("354") {
            return self.data();
        }
        if ends_message(&verb, &line) {
            self.finish(&reply);
        }
        Ok(())
    }

    fn account(&mut self, verb: &str, line: &str, reply: &str) {
        if !reply.starts_with("250") {
            return;
        }
        let mut record = self.shared.record.lock().unwrap();
        match verb {
            "MAIL" => {
                let transaction = Transaction {
                    connection: self.connection,
                    mail: line.to_owned(),
                    ..Transaction::default()
                };
                record.transactions.push(transaction);
                self.transaction = Some(record.transactions.len() - 1);
            }
            "RCPT" => {
                if let Some(index) = self.transaction {
                    record.transactions[index].recipients.push(line.to_owned());
                }
            }
            "RSET" | "EHLO" | "HELO" => self.transaction = None,
            _ => {}
        }
    }

    /// Sends the answer; returns its text.
    fn answer(&mut self, verb: &str, line: &str) -> Result<String, Over> {
        let count = self.counts.entry(verb.to_owned()).or_default();
        let asked = Asked { connection: self.connection, verb, line, before: *count };
        *count += 1;
        let answer = (self.shared.script)(&asked);
        let answer = match answer {
            None if verb == "EHLO" => {
                let mut lines = vec!["mx.scripted.example"];
                lines.extend(&self.shared.extensions);
                let (last, first) = lines.split_last().unwrap();
                let mut text: String = first.iter().map(|line| format!("250-{line}\r\n")).collect();
                text.push_str(&format!("250 {last}"));
                Answer::Reply(text)
            }
            None => default_answer(&asked),
            Some(answer) => answer,
        };
        if ends_message(verb, line) {
            match answer {
                Answer::Reply(text) => return self.end(text),
                // Before the other side can know of it.
                Answer::Dripped(ref text) => self.finish(text),
                _ => {}
            }
        }
        let mut stream = &self.reader.get_ref().stream;
        match answer {
            Answer::Reply(text) => {
                stream.write_all(format!("{text}\r\n").as_bytes()).map_err(|_| Over)?;
                Ok(text)
            }
            Answer::Dripped(text) => {
                for octet in format!("{text}\r\n").bytes() {
                    stream.write_all(&[octet]).map_err(|_| Over)?;
                }
                Ok(text)
            }
            Answer::Last(text) => {
                drop(stream.write_all(format!("{text}\r\n").as_bytes()));
                Err(Over)
            }
            Answer::Torn(text) => {
                drop(stream.write_all(text.as_bytes()));
                Err(Over)
            }
            Answer::Lost(text) => {
                drop(stream.shutdown(Shutdown::Both));
                Ok(text)
            }
            Answer::Close => Err(Over),
            Answer::Silence => {
                // Until the other side has had enough; what it still sends is recorded.
                drop(std::io::copy(&mut self.reader, &mut std::io::sink()));
                Err(Over)
            }
        }
    }

    /// Everything up to CRLF.CRLF.
    fn data(&mut self) -> Result<(), Over> {
        let mut line = Vec::new();
        let mut at_line_start = true;
        loop {
            line.clear();
            if self.reader.read_until(b'\n', &mut line).map_err(|_| Over)? == 0 {
                return Err(Over);
            }
            if at_line_start && line == b".\r\n" {
                break;
            }
            at_line_start = line.ends_with(b"\r\n");
            self.keep(&line);
        }
        let reply = self.answer(".", "")?;
        self.finish(&reply);
        Ok(())
    }

    /// The octets of `BDAT SIZE [LAST]`.
    fn chunk(&mut self, line: &str) -> Result<(), Over> {
        let size: usize = line.split(' ').nth(1).and_then(|size| size.parse().ok()).ok_or(Over)?;
        let mut octets = vec![0; size];
        self.reader.read_exact(&mut octets).map_err(|_| Over)?;
        self.keep(&octets);
        Ok(())
    }

    fn keep(&mut self, octets: &[u8]) {
        self.shared.data_octets.fetch_add(octets.len(), Ordering::SeqCst);
        if let (Some(index), false) = (self.transaction, self.shared.forgets_data) {
            self.shared.record.lock().unwrap().transactions[index].data.extend_from_slice(octets);
        }
    }

    /// Sends the reply to a message, and notes what became of it. Nobody looks in between, or hangs up: a message counts as
    /// taken if the other side can know of it.
    fn end(&mut self, reply: String) -> Result<String, Over> {
        let mut record = self.shared.record.lock().unwrap();
        let mut stream = &self.reader.get_ref().stream;
        stream.write_all(format!("{reply}\r\n").as_bytes()).map_err(|_| Over)?;
        if let Some(index) = self.transaction.take() {
            record.transactions[index].taken = reply.starts_with("250");
        }
        Ok(reply)
    }

    fn finish(&mut self, reply: &str) {
        if let Some(index) = self.transaction.take() {
            self.shared.record.lock().unwrap().transactions[index].taken = reply.starts_with("250");
        }
    }
}
