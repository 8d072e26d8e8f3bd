//! `gatepost quarantine show`: envelope and safe preview, or the message octet for octet.

use serde::Serialize;

use super::Format;
use super::gate::Gate;
use super::gate::Need;
use super::output::{Failed, Output};
use super::preview::{self, Preview};
use super::text::{moment, size};
use crate::config::Config;
use crate::control::api::{Answer, Entry, Part, Purpose, Request};
use crate::control::operations::Octets;
use crate::id::QuarantineId;
use crate::quarantine::Envelope;
use crate::quarantine::checksum::{Altered, Checksum};
use crate::quarantine::envelope::{RecipientState, State};

/// How many octets of a message are examined for the preview; `--raw` shows all of them.
const PREVIEWED: usize = 64 * 1024 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Its id, or the queue id that the client was told
    id: String,
    /// The message octet for octet as it arrived
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    #[command(flatten)]
    format: Format,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    entry: Entry,
    envelope: &'a Envelope,
    preview: &'a Preview,
}

pub(super) async fn run(arguments: &Arguments, config: &Config) -> Result<(), Failed> {
    let mut output = arguments.format.output();
    let mut gate = Gate::open(config, Need::Records).await?;
    if arguments.raw {
        let found = find(&mut gate, &arguments.id, Purpose::Raw).await?;
        let octets = gate.message(&found.id().to_string(), Part::Message, Purpose::Raw).await?;
        let _running = gate.let_go().await;
        return raw(octets, &found, &mut output).await;
    }
    let envelope = match find(&mut gate, &arguments.id, Purpose::Show).await? {
        Found::Envelope(envelope) => envelope,
        Found::Unreadable(entry) => {
            return Err(unreadable(&entry));
        }
    };
    let octets = gate.message(&envelope.id.to_string(), Part::Message, Purpose::Show).await?;
    let (message, checksum) = beginning(octets).await?;
    let preview = preview::preview(&message);
    gate.close().await;
    if output.is_json() {
        let entry = Entry::from((*envelope).clone());
        output.object(&Shown { entry, envelope: &envelope, preview: &preview })?;
    } else {
        tell_envelope(&mut output, &envelope)?;
        tell_preview(&mut output, &preview)?;
    }
    output.flush()?;
    checksum.map_or(Ok(()), |checksum| compare(&checksum, &envelope))
}

/// Shows all that is there, whether or not it is what arrived.
async fn raw(mut octets: Octets, found: &Found, output: &mut Output) -> Result<(), Failed> {
    let mut checksum = Checksum::default();
    while let Some(piece) = octets.recv().await {
        let piece = piece.map_err(Failed::because)?;
        checksum.update(&piece);
        output.octets(&piece)?;
    }
    output.flush()?;
    match found {
        Found::Envelope(envelope) => compare(&checksum, envelope),
        Found::Unreadable(entry) => Err(unreadable(entry)),
    }
}

fn unreadable(entry: &Entry) -> Failed {
    Failed::because(format!("message {}: {}", entry.id, entry.reason))
}

fn compare(checksum: &Checksum, envelope: &Envelope) -> Result<(), Failed> {
    Altered::check(envelope.id, checksum, &envelope.sha256)
        .map_err(|altered| Failed::because(altered.to_string()))
}

/// What is known about a message.
pub(super) enum Found {
    Envelope(Box<Envelope>),
    /// Only if its octets are wanted; otherwise that is a failure.
    Unreadable(Box<Entry>),
}

impl Found {
    fn id(&self) -> QuarantineId {
        match self {
            Self::Envelope(envelope) => envelope.id,
            Self::Unreadable(entry) => entry.id,
        }
    }
}

/// Finds the envelope of one message.
pub(super) async fn find(gate: &mut Gate, id: &str, purpose: Purpose) -> Result<Found, Failed> {
    let mut replies = gate.ask(Request::Envelope { id: id.to_owned(), purpose }).await?;
    let mut found = None;
    while let Some(answer) = replies.next().await {
        match answer {
            Answer::Envelope(envelope) => found = Some(Found::Envelope(envelope)),
            Answer::Entry(entry) => found = Some(Found::Unreadable(Box::new(entry))),
            _ => {}
        }
    }
    replies.verdict()?;
    found.ok_or_else(|| Failed::because("`serve` did not answer; see its log, then try again"))
}

/// Returns what the preview is made of, and the checksum if that is the whole message.
async fn beginning(mut octets: Octets) -> Result<(Vec<u8>, Option<Checksum>), Failed> {
    let mut message = Vec::new();
    while let Some(piece) = octets.recv().await {
        message.extend_from_slice(&piece.map_err(Failed::because)?);
        if message.len() >= PREVIEWED {
            return Ok((message, None));
        }
    }
    let checksum = Checksum::of(&message);
    Ok((message, Some(checksum)))
}

fn tell_envelope(output: &mut Output, envelope: &Envelope) -> Result<(), Failed> {
    let session = &envelope.session;
    field(output, "Id", &envelope.id.to_string())?;
    field(output, "State", envelope.state().as_str())?;
    field(output, "Account", envelope.account.as_str())?;
    field(output, "Parked", &moment(envelope.parked))?;
    field(output, "Reason", &envelope.reason)?;
    let due = envelope.due.filter(|_| envelope.state() == State::Parked);
    let due =
        due.map(|due| format!("{}, when it goes out by itself unless the account is blocked", moment(due)));
    optional(output, "Due", due.as_deref())?;
    if let Some(release) = &envelope.release {
        let next = release.next.map(|next| format!(", next at {}", moment(next))).unwrap_or_default();
        field(
            output,
            "Release",
            &format!("since {}, tries: {}{next}", moment(release.requested), release.tries),
        )?;
    }
    field(output, "Client", &session.client.to_string())?;
    optional(output, "Client name", session.client_name.as_deref())?;
    optional(output, "HELO", session.helo.as_deref())?;
    optional(output, "User", session.login.as_deref())?;
    let tls = session.tls.as_ref().map(|tls| format!("{} {}", tls.version, tls.cipher));
    field(output, "TLS", tls.as_deref().unwrap_or("none"))?;
    field(output, "Session", &session.id.to_string())?;
    field(output, "Size", &size(envelope.size))?;
    field(output, "SHA-256", &envelope.sha256)?;
    field(output, "Told", &envelope.told.to_string())?;
    field(output, "From", &envelope.reverse_path.to_string())?;
    for recipient in &envelope.recipients {
        let state = match &recipient.state {
            RecipientState::Rejected => "refused to the client".to_owned(),
            RecipientState::Pending => "to be sent to".to_owned(),
            RecipientState::Delivered { reply, at } => format!("delivered at {}: {reply}", moment(*at)),
            RecipientState::Refused { reply, at } => format!("refused at {}: {reply}", moment(*at)),
            RecipientState::Deferred { reply, at, .. } => format!("put off at {}: {reply}", moment(*at)),
        };
        let upstream = recipient.upstream.as_ref().map_or("not asked".to_owned(), ToString::to_string);
        field(output, "To", &format!("{}  [{state}]  upstream: {upstream}", recipient.forward_path))?;
    }
    Ok(())
}

fn tell_preview(output: &mut Output, preview: &Preview) -> Result<(), Failed> {
    output.line("")?;
    for (name, value) in &preview.header {
        field(output, name, value)?;
    }
    for attachment in &preview.attachments {
        let name = attachment.name.as_deref().unwrap_or("(no name)");
        let line = format!("{name} ({}, {})", attachment.media_type, size(attachment.size));
        field(output, "Attachment", &line)?;
    }
    optional(output, "Note", preview.note.as_deref())?;
    if let Some(text) = &preview.text {
        output.line("")?;
        for line in text.lines() {
            output.line(&format!("| {line}"))?;
        }
    }
    Ok(())
}

fn field(output: &mut Output, name: &str, value: &str) -> Result<(), Failed> {
    output.line(&format!("{:<12} {value}", format!("{name}:")))
}

fn optional(output: &mut Output, name: &str, value: Option<&str>) -> Result<(), Failed> {
    value.map_or(Ok(()), |value| field(output, name, value))
}
