//! A script as it is written: docs/testing.md has the format.

use std::collections::BTreeMap;
use std::path::Path;

use crate::text::{Pattern, octets};

/// What a script needs of the Gatepost and of the upstream it runs against; those that need the same share them.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Setting {
    /// Keys of the configuration and their values in TOML.
    pub(crate) config: BTreeMap<String, String>,
    /// What the upstream offers, where that is not the usual.
    pub(crate) offers: Option<Vec<String>>,
    /// What it offers once it knows for whom.
    pub(crate) offers_later: Option<Vec<String>>,
    /// Who may send as whom.
    pub(crate) senders: Vec<String>,
    /// The upstream is reached by TLS.
    pub(crate) tls: bool,
    /// The script plays the upstream from its greeting on.
    pub(crate) raw: bool,
    /// The script that wants to be alone, or is alone for playing the greeting.
    pub(crate) alone: Option<String>,
}

/// Where a client comes from, and which listener it goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// Anybody, to the STARTTLS listener.
    StartTls,
    /// Anybody, to the implicit one, TLS established.
    Implicit,
    /// A relay host, to the STARTTLS listener.
    Relay,
}

/// What most scripts begin or end with, and what it stands for.
const SHORTHANDS: &[(&str, &[&str])] = &[
    (
        "mail",
        &[
            "C: MAIL FROM:<alice@mta.example>",
            "U> MAIL FROM:<alice@mta.example>",
            "U< 250 2.1.0 Sender ok",
            "S: 250 2.1.0 Sender ok",
        ],
    ),
    (
        "rcpt",
        &[
            "C: RCPT TO:<bob@mta.example>",
            "U> RCPT TO:<bob@mta.example>",
            "U< 250 2.1.5 Recipient ok",
            "S: 250 2.1.5 Recipient ok",
        ],
    ),
    ("data", &["C: DATA", "S: 354 *"]),
    // The header section of a message that wants for nothing, and its end.
    (
        "head",
        &[
            "C: From: alice@mta.example",
            "C: Date: Tue, 24 Nov 2026 16:05:28 +0000",
            "C: Message-ID: <1@client.example>",
            "C:",
        ],
    ),
    (
        "U head",
        &[
            "U> DATA",
            "U< 354 Go on",
            "U received",
            "U> From: alice@mta.example",
            "U> Date: Tue, 24 Nov 2026 16:05:28 +0000",
            "U> Message-ID: <1@client.example>",
            "U>",
        ],
    ),
    ("U done", &["U> .", "U< 250 2.0.0 Ok: queued as 1234", "S: 250 2.0.0 Ok: queued as 1234"]),
    ("reset", &["C: RSET", "S: 250 2.0.0 *"]),
];

/// One step of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// The client connects, and reads nothing.
    Connect(Door),
    /// It connects, reads the greeting, says EHLO.
    Greeted(Door),
    /// The same within TLS by STARTTLS.
    Secured(Door),
    /// The same, and logs in.
    LogIn(String),
    /// TLS begins now.
    Tls,
    /// The client sends, in one write.
    Send(Vec<u8>),
    /// The client ends its side.
    ClientCloses,
    /// The next line of Gatepost's reply.
    Hear(Pattern),
    /// A whole reply to EHLO.
    HearEhlo,
    /// The last EHLO reply has such a line.
    Offers(Pattern),
    /// It has none.
    Lacks(Pattern),
    /// Gatepost closes the client's connection.
    ServerCloses,
    /// The upstream receives this line.
    Receive(Pattern),
    /// It receives octets without a line's end.
    ReceiveRaw(Vec<u8>),
    /// It receives a `Received:` field.
    ReceiveTrace(Pattern),
    /// It answers.
    Answer(Vec<u8>),
    /// It closes its connection.
    UpstreamCloses,
    /// Its connection is closed by Gatepost, and no end of data came.
    UpstreamLost,
    /// Its connection is closed by Gatepost, whatever came.
    UpstreamRest,
    /// It has received nothing that the script did not name.
    Nothing,
}

#[derive(Debug)]
pub(crate) struct Script {
    /// The file's name without `.smtp`.
    pub(crate) name: String,
    /// For messages.
    pub(crate) path: String,
    /// What the first line says.
    pub(crate) rule: String,
    pub(crate) setting: Setting,
    /// With the numbers of their lines.
    pub(crate) steps: Vec<(usize, Step)>,
}

impl Script {
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let shown = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(path).display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let rule = text.lines().next().and_then(|line| line.strip_prefix("# ")).unwrap_or_default();
        if !(rule.starts_with("RFC ") || rule.starts_with("CONTRACT, ")) || !rule.contains(": ") {
            return Err(format!(
                "{shown}:1: the first line is `# RFC NUMBER SECTION: RULE` or `# CONTRACT, PART: RULE`"
            ));
        }
        let rule = rule.to_owned();
        let mut script = Self { name, path: shown, rule, setting: Setting::default(), steps: Vec::new() };
        for (number, line) in text.lines().enumerate() {
            let number = number + 1;
            script
                .line(number, line.trim_start())
                .map_err(|error| format!("{}:{number}: {error}", script.path))?;
        }
        if script.setting.raw {
            script.setting.alone = Some(script.name.clone());
        }
        Ok(script)
    }

    fn line(&mut self, number: usize, line: &str) -> Result<(), String> {
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        if self.set(line)? {
            return Ok(());
        }
        if let Some((_, lines)) = SHORTHANDS.iter().find(|(name, _)| *name == line) {
            return lines.iter().try_for_each(|line| self.line(number, line));
        }
        let step = step(line)?;
        // What the client says without reading in between goes out in one write.
        match (&step, self.steps.last_mut()) {
            (Step::Send(more), Some((_, Step::Send(batch)))) => batch.extend_from_slice(more),
            _ => self.steps.push((number, step)),
        }
        Ok(())
    }

    /// Whether it is a line about the setting.
    fn set(&mut self, line: &str) -> Result<bool, String> {
        let words =
            |text: &str| Some(text.split(", ").map(str::to_owned).filter(|word| !word.is_empty()).collect());
        if let Some(rest) = line.strip_prefix("config ") {
            let (key, value) = rest.split_once(' ').ok_or("config KEY VALUE")?;
            self.setting.config.insert(key.to_owned(), value.trim().to_owned());
        } else if let Some(rest) = line.strip_prefix("upstream offers") {
            self.setting.offers = words(rest.trim());
        } else if let Some(rest) = line.strip_prefix("upstream later offers") {
            self.setting.offers_later = words(rest.trim());
        } else if let Some(rest) = line.strip_prefix("senders ") {
            self.setting.senders.push(rest.to_owned());
        } else if line == "upstream tls" {
            self.setting.tls = true;
        } else if line == "upstream raw" {
            self.setting.raw = true;
        } else if line == "alone" {
            self.setting.alone = Some(self.name.clone());
        } else {
            return Ok(false);
        }
        Ok(true)
    }
}

fn step(line: &str) -> Result<Step, String> {
    // Trailing blanks matter in what is sent and heard; everywhere else there are none.
    let is = |prefix: &str| line.strip_prefix(prefix);
    let sent = |text: &str, end: &str| octets(text).map(|octets| [&octets, end.as_bytes()].concat());
    Ok(match line {
        "connect" => Step::Connect(Door::StartTls),
        "connect implicit" => Step::Connect(Door::Implicit),
        "connect relay" => Step::Connect(Door::Relay),
        "greeted" => Step::Greeted(Door::StartTls),
        "relay" => Step::Greeted(Door::Relay),
        "secured" => Step::Secured(Door::StartTls),
        "secured relay" => Step::Secured(Door::Relay),
        "tls" => Step::Tls,
        "C closes" => Step::ClientCloses,
        "S closes" => Step::ServerCloses,
        "S ehlo" => Step::HearEhlo,
        "U closes" => Step::UpstreamCloses,
        "U lost" => Step::UpstreamLost,
        "U rest" => Step::UpstreamRest,
        "U nothing" => Step::Nothing,
        "U received" => Step::ReceiveTrace(Pattern::parse("*")?),
        "C:" => Step::Send(b"\r\n".to_vec()),
        "U>" => Step::Receive(Pattern::parse("")?),
        _ => {
            if let Some(text) = is("C: ") {
                Step::Send(sent(text, "\r\n")?)
            } else if let Some(text) = is("C raw: ") {
                Step::Send(octets(text)?)
            } else if let Some(text) = is("S: ") {
                Step::Hear(Pattern::parse(text)?)
            } else if let Some(text) = is("offers ") {
                Step::Offers(Pattern::parse(text)?)
            } else if let Some(text) = is("lacks ") {
                Step::Lacks(Pattern::parse(text)?)
            } else if let Some(text) = is("login ") {
                Step::LogIn(text.to_owned())
            } else if let Some(text) = is("U received ") {
                Step::ReceiveTrace(Pattern::parse(text)?)
            } else if let Some(text) = is("U> ") {
                Step::Receive(Pattern::parse(text)?)
            } else if let Some(text) = is("U raw> ") {
                Step::ReceiveRaw(octets(text)?)
            } else if let Some(text) = is("U< ") {
                Step::Answer(sent(text, "\r\n")?)
            } else if let Some(text) = is("U raw< ") {
                Step::Answer(octets(text)?)
            } else {
                return Err(format!("no line of a script: {line}"));
            }
        }
    })
}
