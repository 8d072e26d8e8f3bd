//! One script, played: each step against what really comes, with a deadline, and the whole conversation for whoever reads a failure.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::script::{Door, Script, Step};
use crate::stage::{Stage, Wire, client_address};
use crate::support::gatepost::PASSWORD;
use crate::support::smtp::{Heard, Smtp};
use crate::support::{contains, shown};
use crate::text::Pattern;

/// What went wrong, and what had been said until then.
#[derive(Debug)]
pub(crate) struct Failure {
    place: String,
    rule: String,
    trouble: String,
    transcript: Vec<String>,
}

impl Failure {
    pub(crate) fn panicked(script: &Script) -> Self {
        let (place, rule) = (script.path.clone(), script.rule.clone());
        Self { place, rule, trouble: "it panicked; see above".to_owned(), transcript: Vec::new() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "--- {}: {}\n    {}", self.place, self.rule, self.trouble)?;
        self.transcript.iter().try_for_each(|line| writeln!(f, "    | {line}"))
    }
}

/// The players and what was said.
struct Play<'a> {
    stage: &'a Stage,
    number: usize,
    address: IpAddr,
    client: Option<Smtp>,
    /// Those before it, which stay connected.
    earlier: Vec<Smtp>,
    upstream: Option<Wire>,
    ehlo: Vec<String>,
    transcript: Vec<String>,
}

/// Plays `script`, which is the `number`th of all.
pub(crate) fn play(stage: &Stage, number: usize, script: &Script) -> Result<(), Failure> {
    stage.begin();
    let address = client_address(Door::StartTls, number);
    let mut play = Play {
        stage,
        number,
        address,
        client: None,
        earlier: Vec::new(),
        upstream: None,
        ehlo: Vec::new(),
        transcript: Vec::new(),
    };
    for (line, step) in &script.steps {
        if let Err(trouble) = play.step(step) {
            return Err(play.failure(script, &format!(":{line}"), trouble));
        }
    }
    match play.end() {
        Ok(()) => Ok(()),
        Err(trouble) => Err(play.failure(script, " (after its last line)", trouble)),
    }
}

fn unlike(expected: &impl fmt::Display, got: &impl fmt::Display) -> String {
    format!("expected: {:.600}\n    got:      {:.600}", expected.to_string(), got.to_string())
}

impl Play<'_> {
    fn failure(self, script: &Script, at: &str, trouble: String) -> Failure {
        let place = script.path.clone() + at;
        Failure { place, rule: script.rule.clone(), trouble, transcript: self.transcript }
    }

    fn note(&mut self, who: &str, octets: &[u8]) {
        let beginning = shown(&octets[..octets.len().min(300)]);
        let more = if octets.len() > 300 { format!("... {} octets", octets.len()) } else { String::new() };
        self.transcript.push(format!("{who} {}{more}", beginning.replace("\\r\\n", "\\r\\n ")));
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Connect(door) => self.connect(*door),
            Step::Greeted(door) => self.greeted(*door),
            Step::Secured(door) => self.secured(*door),
            Step::LogIn(user) => {
                self.secured(Door::StartTls)?;
                self.send(format!("AUTH PLAIN {}\r\n", base64(&format!("\0{user}\0{PASSWORD}"))).as_bytes())?;
                self.hear(&Pattern::parse("235 2.7.0 *")?)
            }
            Step::Tls => self.client()?.try_begin_tls().map_err(|error| format!("TLS handshake: {error}")),
            Step::Send(octets) => self.send(octets),
            Step::ClientCloses => {
                self.client = None;
                self.transcript.push("C closes".to_owned());
                Ok(())
            }
            Step::Hear(pattern) => self.hear(pattern),
            Step::HearEhlo => self.hear_ehlo(),
            Step::Offers(line) if self.offers(line) => Ok(()),
            Step::Offers(line) => Err(unlike(&format!("a line {line}"), &self.ehlo.join(", "))),
            Step::Lacks(line) if self.offers(line) => {
                Err(unlike(&format!("no line {line}"), &self.ehlo.join(", ")))
            }
            Step::Lacks(_) => Ok(()),
            Step::ServerCloses => self.server_closes(),
            Step::Receive(pattern) => self.receive(pattern),
            Step::ReceiveRaw(octets) => self.receive_raw(octets),
            Step::ReceiveTrace(pattern) => self.receive_trace(pattern),
            Step::Answer(octets) => {
                self.note("U<", octets);
                self.upstream()?.send(octets).map_err(|error| format!("the upstream cannot answer: {error}"))
            }
            Step::UpstreamCloses => {
                self.upstream()?;
                self.upstream = None;
                self.transcript.push("U closes".to_owned());
                Ok(())
            }
            Step::UpstreamLost => {
                let rest = self.upstream_rest()?;
                let has_end = contains(&rest, b"\r\n.\r\n") || contains(&rest, b" LAST\r\n");
                if has_end { Err(unlike(&"no end of data", &"one")) } else { Ok(()) }
            }
            Step::UpstreamRest => self.upstream_rest().map(drop),
            Step::Nothing => self.nothing(),
        }
    }

    fn client(&mut self) -> Result<&mut Smtp, String> {
        self.client.as_mut().ok_or_else(|| "no client is connected: begin with `connect`".to_owned())
    }

    fn connect(&mut self, door: Door) -> Result<(), String> {
        self.address = client_address(door, self.number);
        let gatepost = &self.stage.gatepost;
        let listener = if door == Door::Implicit { gatepost.implicit } else { gatepost.starttls };
        let mut client = Smtp::open(self.address, listener);
        client.set_patience(crate::stage::PATIENCE);
        self.transcript.push(format!("C connects from {}", self.address));
        self.earlier.extend(self.client.replace(client));
        if door == Door::Implicit { self.step(&Step::Tls) } else { Ok(()) }
    }

    fn greeted(&mut self, door: Door) -> Result<(), String> {
        self.connect(door)?;
        self.hear(&Pattern::parse("220 gate.example ESMTP*")?)?;
        self.send(b"EHLO client.example\r\n")?;
        self.hear_ehlo()
    }

    fn secured(&mut self, door: Door) -> Result<(), String> {
        self.greeted(door)?;
        self.send(b"STARTTLS\r\n")?;
        self.hear(&Pattern::parse("220 2.0.0 *")?)?;
        self.step(&Step::Tls)?;
        self.send(b"EHLO client.example\r\n")?;
        self.hear_ehlo()
    }

    fn send(&mut self, octets: &[u8]) -> Result<(), String> {
        self.note("C:", octets);
        self.client()?.try_send(octets).map_err(|error| format!("the client cannot send: {error}"))
    }

    fn heard(&mut self) -> Result<Option<String>, String> {
        let line = self.client()?.line();
        match &line {
            Ok(Some(line)) => self.transcript.push(format!("S: {line}")),
            Ok(None) => self.transcript.push("S closes".to_owned()),
            Err(error) => self.transcript.push(format!("S: ({error})")),
        }
        line.map_err(|error| format!("no reply: {error}"))
    }

    fn hear(&mut self, pattern: &Pattern) -> Result<(), String> {
        match self.heard().map_err(|error| unlike(pattern, &error))? {
            Some(line) if pattern.matches(line.as_bytes()) => Ok(()),
            Some(line) => Err(unlike(pattern, &shown(line.as_bytes()))),
            None => Err(unlike(pattern, &"the end of the connection")),
        }
    }

    fn hear_ehlo(&mut self) -> Result<(), String> {
        self.ehlo.clear();
        loop {
            let line = self.heard()?.ok_or_else(|| unlike(&"250 to EHLO", &"the end of the connection"))?;
            let last = line.starts_with("250 ");
            let Some(text) = line.strip_prefix("250-").or_else(|| line.strip_prefix("250 ")) else {
                return Err(unlike(&"250 to EHLO", &line));
            };
            self.ehlo.push(text.to_owned());
            if last {
                return Ok(());
            }
        }
    }

    fn offers(&self, pattern: &Pattern) -> bool {
        self.ehlo.iter().skip(1).any(|line| pattern.matches(line.as_bytes()))
    }

    fn server_closes(&mut self) -> Result<(), String> {
        match self.client()?.try_hear() {
            Ok(Heard::Reply(reply)) => Err(unlike(&"the end of the connection", &reply.text())),
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
            {
                Err(unlike(&"the end of the connection", &"nothing"))
            }
            // Over TLS an end without close_notify, or a reset: an end all the same.
            Ok(Heard::Closed) | Err(_) => Ok(()),
        }
    }

    fn upstream(&mut self) -> Result<&mut Wire, String> {
        if self.upstream.is_none() {
            self.upstream = self.stage.take(self.address, crate::stage::PATIENCE);
            self.transcript.push("U is connected".to_owned());
        }
        self.upstream.as_mut().ok_or_else(|| "the upstream is not connected to".to_owned())
    }

    fn received(&mut self, expected: &impl fmt::Display) -> Result<Vec<u8>, String> {
        let line = self.upstream().and_then(|wire| wire.line().map_err(|error| error.to_string()));
        match line {
            Ok(Some(line)) => {
                self.note("U>", &line);
                Ok(line)
            }
            Ok(None) => Err(unlike(expected, &"the end of the upstream connection")),
            Err(error) => Err(unlike(expected, &error)),
        }
    }

    fn receive(&mut self, pattern: &Pattern) -> Result<(), String> {
        let line = self.received(pattern)?;
        if pattern.matches(&line) { Ok(()) } else { Err(unlike(pattern, &shown(&line))) }
    }

    fn receive_raw(&mut self, expected: &[u8]) -> Result<(), String> {
        let got = self.upstream()?.octets(expected.len());
        let got = got.map_err(|error| unlike(&shown(expected), &error))?;
        self.note("U>", &got);
        if got == expected { Ok(()) } else { Err(unlike(&shown(expected), &shown(&got))) }
    }

    /// The field may go over several lines; the pattern is for what they say, unfolded.
    fn receive_trace(&mut self, pattern: &Pattern) -> Result<(), String> {
        let mut field = self.received(&"Received:")?;
        if !field.starts_with(b"Received: ") {
            return Err(unlike(&"Received:", &shown(&field)));
        }
        while self
            .upstream()?
            .next_octet()
            .map_err(|error| error.to_string())?
            .is_some_and(|c| b" \t".contains(&c))
        {
            let more = self.received(&"more of the field")?;
            field.push(b' ');
            field.extend_from_slice(more.trim_ascii_start());
        }
        let value = &field["Received: ".len()..];
        if pattern.matches(value) { Ok(()) } else { Err(unlike(pattern, &shown(value))) }
    }

    fn upstream_rest(&mut self) -> Result<Vec<u8>, String> {
        let rest = self.upstream()?.rest();
        let rest = rest.map_err(|error| unlike(&"the end of the upstream connection", &error))?;
        self.upstream = None;
        self.note("U>", &rest);
        self.transcript.push("U is lost".to_owned());
        Ok(rest)
    }

    fn nothing(&mut self) -> Result<(), String> {
        if self.upstream.is_none() {
            self.upstream = self.stage.take(self.address, Duration::ZERO);
        }
        let Some(wire) = &mut self.upstream else { return Ok(()) };
        let octets = wire.at_hand().map_err(|error| error.to_string())?;
        // A farewell asks for nothing: what is not needed any more may be closed.
        if matches!(octets, b"" | b"QUIT\r\n") { Ok(()) } else { Err(unlike(&"nothing", &shown(octets))) }
    }

    /// Nothing but farewells may have gone upstream beyond what the script named.
    fn end(&mut self) -> Result<(), String> {
        self.client = None;
        self.earlier.clear();
        if self.stage.is_raw() {
            // Its connections are kept for other clients.
            return Ok(());
        }
        while let Some(mut wire) =
            self.upstream.take().or_else(|| self.stage.take(self.address, Duration::ZERO))
        {
            let rest =
                wire.rest().map_err(|error| format!("the upstream connection is not closed: {error}"))?;
            let farewells = ["", "QUIT\r\n", "RSET\r\n", "RSET\r\nQUIT\r\n"];
            if !farewells.iter().any(|farewell| farewell.as_bytes() == rest) {
                return Err(unlike(&"nothing more upstream", &shown(&rest)));
            }
        }
        Ok(())
    }
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}
