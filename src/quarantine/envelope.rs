//! Everything known about a parked message except its content: readable, versioned text (JSON); pure.
//!
//! A version newer than ours is refused with a clear message. A key that is unknown, missing or duplicated is an error
//! with line and column; nothing is dropped silently. What a release derives from an envelope is in `progress`.

use std::net::SocketAddr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::account::Account;
use crate::clock::Timestamp;
use crate::history::Block;
use crate::id::{QuarantineId, SessionId};
use crate::smtp::{ForwardPath, MailParameters, RcptParameters, Reply, ReversePath};

/// The version that this Gatepost writes, and the newest that it reads.
pub const VERSION: u32 = 1;
/// The reason of a message that did not go out by itself after all.
const KEPT: &str = "account on probation, and blocked since: it waits for an operator";
/// The same once its release has begun.
const WAS_KEPT: &str = "account on probation when it came, and blocked since";
/// The reason of a message that was delayed, once its release has begun.
const WAS_DELAYED: &str = "account on probation when it came";
/// The longest text that is written or read, in octets: 1,000 recipients, each with the longest reply
/// ([`MAX_REPLY`](crate::smtp::reply::MAX_REPLY)) that is accepted from an upstream.
pub const MAX_TEXT: usize = 64 * 1024 * 1024;

/// One parked message's envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// See [`VERSION`].
    pub version: u32,
    /// The name of its files.
    pub id: QuarantineId,
    /// Who sent it.
    pub account: Account,
    /// When its end of data arrived.
    pub parked: Timestamp,
    /// Why it was parked.
    pub reason: String,
    /// The block for which it was parked, if any.
    #[serde(default)]
    pub block: Option<Block>,
    /// The session in which it arrived.
    pub session: SessionFacts,
    /// `MAIL FROM:`
    pub reverse_path: ReversePath,
    /// Its parameters.
    pub parameters: MailParameters,
    /// The upstream's reply to MAIL, if it was asked.
    #[serde(deserialize_with = "present")]
    pub mail_reply: Option<Reply>,
    /// Every RCPT that parsed, including refused ones, in order.
    pub recipients: Vec<Recipient>,
    /// Size of the message as it arrived, in octets.
    pub size: u64,
    /// SHA-256 of the message as it arrived, lower-case hexadecimal.
    pub sha256: String,
    /// The Subject, decoded (RFC 2047) but not cleaned: clean it before showing it.
    #[serde(deserialize_with = "present")]
    pub subject: Option<String>,
    /// The header fields put in front at each transfer: Received, X-Authenticated-As, and Date and Message-ID if they
    /// were missing.
    pub trace: String,
    /// How else it is changed at each transfer.
    #[serde(default)]
    pub treatment: Treatment,
    /// The reply that the client got to the end of data.
    pub told: Reply,
    /// The made-up queue ids in that reply, with a blank between two.
    #[serde(deserialize_with = "present")]
    pub told_queue_id: Option<String>,
    /// When it goes out by itself (probation).
    #[serde(deserialize_with = "present")]
    pub due: Option<Timestamp>,
    /// Its release; set from the first one on.
    #[serde(deserialize_with = "present")]
    pub release: Option<Release>,
}

/// How a message is changed on its way upstream, apart from the fields put in front of it; decided on arrival.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Treatment {
    /// Whether a bare LF becomes CRLF.
    pub normalize: bool,
    /// Whether every Sender: field is dropped.
    pub without_sender: bool,
}

/// The session in which a message arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionFacts {
    /// The id in the log.
    pub id: SessionId,
    /// The client's address and port.
    pub client: SocketAddr,
    /// The client's name, if it was looked up.
    #[serde(deserialize_with = "present")]
    pub client_name: Option<String>,
    /// The argument of its EHLO or HELO, cleaned.
    #[serde(deserialize_with = "present")]
    pub helo: Option<String>,
    /// Whether it said EHLO rather than HELO.
    pub extended: bool,
    /// The user name, if the client authenticated.
    #[serde(deserialize_with = "present")]
    pub login: Option<String>,
    /// The TLS version and cipher suite.
    #[serde(deserialize_with = "present")]
    pub tls: Option<TlsFacts>,
}

/// How a session was encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFacts {
    /// `TLSv1.3`
    pub version: String,
    /// `TLS_AES_256_GCM_SHA384`
    pub cipher: String,
}

/// One RCPT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipient {
    /// `RCPT TO:`
    pub forward_path: ForwardPath,
    /// Its parameters.
    pub parameters: RcptParameters,
    /// The upstream's reply; `None` if it was not asked.
    #[serde(deserialize_with = "present")]
    pub upstream: Option<Reply>,
    /// Its state.
    pub state: RecipientState,
}

/// The state of a recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state", try_from = "StateText")]
pub enum RecipientState {
    /// The client was told that it is refused: never sent to.
    Rejected,
    /// Still to be sent to.
    Pending,
    /// The upstream accepted the message for it at a release.
    Delivered {
        /// The upstream's reply to the end of data.
        reply: Reply,
        /// When.
        at: Timestamp,
    },
    /// The upstream refused it for good at a release.
    Refused {
        /// The upstream's reply.
        reply: Reply,
        /// When.
        at: Timestamp,
    },
    /// Deferred at the last try; it will be tried again.
    Deferred {
        /// The upstream's reply, or ours if it gave none.
        reply: Reply,
        /// When.
        at: Timestamp,
        /// Whether a try has come to it.
        asked: bool,
    },
}

/// A [`RecipientState`] as it is read. A tagged enum derived by serde would ignore keys that do not belong to the
/// variant.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StateText {
    state: StateWord,
    reply: Option<Reply>,
    at: Option<Timestamp>,
    asked: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum StateWord {
    Rejected,
    Pending,
    Delivered,
    Refused,
    Deferred,
}

impl TryFrom<StateText> for RecipientState {
    type Error = &'static str;

    fn try_from(text: StateText) -> Result<Self, Self::Error> {
        if text.asked.is_some() && !matches!(text.state, StateWord::Deferred) {
            return Err("`asked` belongs to no such state");
        }
        match (text.state, text.reply, text.at) {
            (StateWord::Rejected, None, None) => Ok(Self::Rejected),
            (StateWord::Pending, None, None) => Ok(Self::Pending),
            (StateWord::Delivered, Some(reply), Some(at)) => Ok(Self::Delivered { reply, at }),
            (StateWord::Refused, Some(reply), Some(at)) => Ok(Self::Refused { reply, at }),
            (StateWord::Deferred, Some(reply), Some(at)) => {
                // Earlier envelopes do not say it, and it decides no more than who is asked first.
                Ok(Self::Deferred { reply, at, asked: text.asked.unwrap_or(true) })
            }
            (StateWord::Rejected | StateWord::Pending, _, _) => {
                Err("`reply` and `at` belong to no such state")
            }
            _ => Err("the state needs both `reply` and `at`"),
        }
    }
}

/// A release under way or failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// When the release was decided.
    pub requested: Timestamp,
    /// Whether the sender is not notified of refused recipients.
    pub quiet: bool,
    /// Whether its delay ended, rather than an operator deciding. A block of the account then keeps what is still to be
    /// sent.
    #[serde(default)]
    pub by_itself: bool,
    /// How many tries there were so far.
    pub tries: u32,
    /// When the next try is; `None`: it failed and waits for the operator.
    #[serde(deserialize_with = "present")]
    pub next: Option<Timestamp>,
}

/// The state of a message, as listings show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It waits for an operator or for its due time.
    Parked,
    /// It is being released; some recipients are still unanswered.
    Releasing,
    /// It was released, and accepted for nobody.
    Failed,
    /// Its envelope does not parse or cannot be read.
    Unreadable,
}

impl State {
    /// The word for it, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Parked => "parked",
            Self::Releasing => "releasing",
            Self::Failed => "failed",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Why a text is not an envelope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// A newer Gatepost wrote it.
    #[error("the envelope has version {found}; this Gatepost knows up to {VERSION}. Use a newer Gatepost")]
    Newer {
        /// Its version.
        found: u32,
    },
    /// It does not parse.
    #[error("the envelope does not parse: {0}")]
    Syntax(String),
    /// It is longer than [`MAX_TEXT`].
    #[error("the envelope has {octets} octets, more than {MAX_TEXT}")]
    TooLong {
        /// Its length in octets.
        octets: u64,
    },
}

impl From<serde_json::Error> for EnvelopeError {
    fn from(error: serde_json::Error) -> Self {
        Self::Syntax(error.to_string())
    }
}

impl Envelope {
    /// Returns the message's state.
    pub fn state(&self) -> State {
        match &self.release {
            None => State::Parked,
            Some(Release { next: Some(_), .. }) => State::Releasing,
            Some(Release { next: None, .. }) => State::Failed,
        }
    }

    /// Returns when the message goes out without an operator's decision: at the end of its delay, or at the next try
    /// after that.
    pub fn goes_by_itself(&self) -> Option<Timestamp> {
        match &self.release {
            None => self.due,
            Some(release) => release.next.filter(|_| release.by_itself),
        }
    }

    /// Begins its release, or begins it anew. What the message waited for is over, so the reason no longer says it.
    pub fn begin_release(&mut self, release: Release) {
        let was = if self.reason == KEPT { Some(WAS_KEPT) } else { self.due.map(|_| WAS_DELAYED) };
        if let Some(was) = was {
            was.clone_into(&mut self.reason);
        }
        self.release = Some(release);
    }

    /// Makes the message wait for an operator, for those recipients that have no answer yet: its account was blocked
    /// before it could go out by itself.
    pub fn keep(&mut self) {
        self.due = None;
        self.release = None;
        KEPT.clone_into(&mut self.reason);
    }

    /// Encodes it as text.
    ///
    /// # Errors
    /// [`EnvelopeError::TooLong`]
    pub fn encode(&self) -> Result<String, EnvelopeError> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        within_bounds(&text)?;
        Ok(text)
    }

    /// Decodes it from text.
    ///
    /// # Errors
    /// It has a newer version, or is not an envelope.
    pub fn decode(text: &str) -> Result<Self, EnvelopeError> {
        within_bounds(text)?;
        let read: Result<Self, _> = serde_json::from_str(text);
        if let Ok(envelope) = &read
            && envelope.version == VERSION
        {
            return Ok(read?);
        }
        // The version explains an unknown key better than the key does.
        let Version { version } = serde_json::from_str(text)?;
        if version > u64::from(VERSION) {
            return Err(EnvelopeError::Newer { found: u32::try_from(version).unwrap_or(u32::MAX) });
        }
        read?;
        Err(EnvelopeError::Syntax(format!("there is no version {version}")))
    }
}

/// The part that every version has.
#[derive(Deserialize)]
struct Version {
    version: u64,
}

fn within_bounds(text: &str) -> Result<(), EnvelopeError> {
    if text.len() > MAX_TEXT { Err(EnvelopeError::TooLong { octets: text.len() as u64 }) } else { Ok(()) }
}

/// Deserializes an optional value whose key must be present. By default serde takes a missing key for `None`.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(deserializer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::BlockedBy;
    use crate::quarantine::sample;
    use crate::smtp::parameter::{Body, Notify, Ret};
    use crate::smtp::{Enhanced, Mailbox};
    use proptest::prelude::*;

    fn text() -> String {
        sample::envelope(sample::id(1), b"content").encode().unwrap()
    }

    #[test]
    fn the_version_comes_first_and_every_key_is_written() {
        let text = text();
        assert!(text.starts_with("{\n  \"version\": 1,\n  \"id\": \""), "{text}");
        for key in ["due", "release", "client_name"] {
            assert!(text.contains(&format!("\"{key}\": null")), "{key}");
        }
    }

    #[test]
    fn nothing_is_dropped_in_silence() {
        let text = text();
        let swap = |from: &str, to: &str| {
            assert_eq!(text.matches(from).count(), 1, "{from}");
            text.replace(from, to)
        };
        let pending = r#""state": "pending""#;
        for (damaged, expected) in [
            (swap("\"due\": null", "\"dew\": null"), "unknown field `dew`"),
            (swap("  \"due\": null,\n", ""), "missing field `due`"),
            (swap("\"due\": null", "\"due\": null, \"due\": null"), "duplicate field `due`"),
            (swap("\"version\": 1,", ""), "missing field `version`"),
            (swap("\"version\": 1", "\"version\": 1, \"version\": 2"), "duplicate field `version`"),
            (swap("\"version\": 1", "\"version\": 0"), "no version 0"),
            (swap("\"version\": 1", "\"version\": \"1\""), "invalid type"),
            (swap("\"extended\": true", "\"extended\": 1"), "invalid type"),
            (swap("\"cipher\":", "\"key\":"), "unknown field `key`"),
            (swap(pending, r#""state": "posted""#), "unknown variant `posted`"),
            (swap(pending, r#""state": "pending", "at": "2026-11-24T16:05:28Z""#), "belong to no such state"),
            (swap(pending, r#""state": "delivered""#), "needs both `reply` and `at`"),
            (swap(pending, r#""state": "pending", "since": 1"#), "unknown field `since`"),
            (swap(pending, r#""state": "pending", "asked": true"#), "`asked` belongs to no such state"),
            (swap(pending, r#""state": "pending", "state": "pending""#), "duplicate field `state`"),
            (swap("\"user:anna\"", "\"user: \""), "no blanks"),
            (format!("{text}x"), "trailing characters"),
            (text[..text.len() / 2].into(), "EOF"),
            (String::new(), "EOF"),
            ("\0\0\0\0".into(), "expected value"),
            ("[".repeat(100_000), "invalid type"),
        ] {
            let Err(EnvelopeError::Syntax(told)) = Envelope::decode(&damaged) else {
                panic!("taken: {damaged}");
            };
            assert!(told.contains(expected), "{told} / {expected}");
            assert!(expected == "no version 0" || told.contains(" at line "), "{told}");
        }
    }

    #[test]
    fn what_came_later_may_be_missing() {
        let text = text();
        let begin = text.find("  \"treatment\"").unwrap();
        let end = begin + text[begin..].find("},\n").unwrap() + 3;
        let before = format!("{}{}", &text[..begin], &text[end..]);
        assert_eq!(Envelope::decode(&before), Envelope::decode(&text));
    }

    #[test]
    fn whether_a_recipient_was_asked() {
        for (asked, expected) in [("", true), (r#","asked":true"#, true), (r#","asked":false"#, false)] {
            let reply = r#"{"code": 451, "enhanced": null, "text": "come back later"}"#;
            let state =
                format!(r#"{{"state":"deferred","reply":{reply},"at":"2026-11-24T16:05:28Z"{asked}}}"#);
            let state = serde_json::from_str::<RecipientState>(&state).unwrap();
            assert!(
                matches!(state, RecipientState::Deferred { asked, .. } if asked == expected),
                "{state:?} {asked}"
            );
        }
    }

    #[test]
    fn a_newer_version_is_named_before_what_it_brings() {
        for (version, found) in [("2", 2), ("4294967296", u32::MAX)] {
            let newer =
                text().replace("\"version\": 1", &format!("\"version\": {version}, \"colour\": \"red\""));
            assert_eq!(Envelope::decode(&newer), Err(EnvelopeError::Newer { found }));
        }
        let alike = text().replace("\"version\": 1", "\"version\": 2");
        assert_eq!(Envelope::decode(&alike), Err(EnvelopeError::Newer { found: 2 }));
    }

    #[test]
    fn a_text_beyond_the_bound_is_not_looked_at() {
        let octets = MAX_TEXT as u64 + 1;
        let long = " ".repeat(MAX_TEXT + 1);
        assert_eq!(Envelope::decode(&long), Err(EnvelopeError::TooLong { octets }));
        let mut envelope = sample::envelope(sample::id(1), b"");
        envelope.trace = long;
        assert!(matches!(envelope.encode(), Err(EnvelopeError::TooLong { .. })));
    }

    #[test]
    fn where_it_stands() {
        let mut envelope = sample::envelope(sample::id(1), b"");
        assert_eq!(envelope.state(), State::Parked);
        let at = Timestamp::default();
        for (next, state) in [(Some(at), State::Releasing), (None, State::Failed)] {
            envelope.release =
                Some(Release { requested: at, quiet: false, by_itself: false, tries: 1, next });
            assert_eq!(envelope.state(), state);
        }
    }

    #[test]
    fn a_delay_that_is_over_is_no_decision() {
        let mut envelope = sample::envelope(sample::id(1), b"");
        let at = Timestamp::from_millis;
        assert_eq!(envelope.goes_by_itself(), None);
        envelope.due = Some(at(5));
        assert_eq!(envelope.goes_by_itself(), Some(at(5)));
        for (by_itself, next, expected) in
            [(true, Some(at(9)), Some(at(9))), (true, None, None), (false, Some(at(9)), None)]
        {
            envelope.release = Some(Release { requested: at(5), quiet: false, by_itself, tries: 1, next });
            assert_eq!(envelope.goes_by_itself(), expected);
        }
        envelope.release =
            Some(Release { requested: at(5), quiet: false, by_itself: true, tries: 1, next: Some(at(9)) });
        envelope.reason = "account on probation: it goes out by itself".into();
        envelope.keep();
        assert_eq!((envelope.goes_by_itself(), envelope.state()), (None, State::Parked));
        assert!(!envelope.reason.contains("by itself"), "{}", envelope.reason);
    }

    #[test]
    fn the_reason_of_a_release_says_nothing_of_waiting() {
        let release = |next| Release {
            requested: Timestamp::default(),
            quiet: false,
            by_itself: false,
            tries: 1,
            next,
        };
        let mut kept = sample::envelope(sample::id(1), b"");
        kept.keep();
        let delayed = "account on probation: it goes out by itself, unless the account is blocked by then";
        let mut delayed = Envelope { reason: delayed.into(), ..kept.clone() };
        delayed.due = Some(Timestamp::default());
        let blocked = sample::envelope(sample::id(1), b"");
        let expected = blocked.reason.clone();
        for (envelope, expected) in [
            (delayed, "account on probation when it came"),
            (kept, "account on probation when it came, and blocked since"),
            (blocked, expected.as_str()),
        ] {
            let mut envelope = envelope;
            for next in [Some(Timestamp::default()), None, Some(Timestamp::default())] {
                envelope.begin_release(release(next));
                assert_eq!(envelope.reason, expected);
            }
            envelope.keep();
            assert_eq!(envelope.reason, KEPT);
        }
    }

    fn replies() -> impl Strategy<Value = Reply> {
        let enhanced = proptest::option::of((prop::sample::select(vec![2, 4, 5]), 0..1000_u16, 0..1000_u16));
        (200..600_u16, enhanced, any::<String>()).prop_map(|(code, enhanced, text)| {
            let enhanced = enhanced.map(|(class, subject, detail)| Enhanced { class, subject, detail });
            Reply { code, enhanced, text: text.into() }
        })
    }

    fn times() -> impl Strategy<Value = Timestamp> {
        (0..=Timestamp::from_millis(u64::MAX).as_millis()).prop_map(Timestamp::from_millis)
    }

    fn states() -> impl Strategy<Value = RecipientState> {
        (0..6, replies(), times()).prop_map(|(state, reply, at)| match state {
            0 => RecipientState::Rejected,
            1 => RecipientState::Pending,
            2 => RecipientState::Delivered { reply, at },
            3 => RecipientState::Refused { reply, at },
            _ => RecipientState::Deferred { reply, at, asked: state == 4 },
        })
    }

    fn releases() -> impl Strategy<Value = Release> {
        (times(), any::<[bool; 2]>(), any::<u32>(), proptest::option::of(times())).prop_map(
            |(requested, [quiet, by_itself], tries, next)| Release {
                requested,
                quiet,
                by_itself,
                tries,
                next,
            },
        )
    }

    proptest! {
        #[test]
        fn encode_and_decode_are_inverse(
            free in any::<[String; 3]>(),
            optional in any::<[Option<String>; 5]>(),
            recipients in prop::collection::vec((proptest::option::of(replies()), states()), 0..5),
            (release, due, told) in (proptest::option::of(releases()), proptest::option::of(times()), replies()),
            size in any::<u64>(),
            address in any::<(std::net::IpAddr, u16)>(),
            mailbox in prop::sample::select(vec![
                "anna@example.org", "\"a\\\"b c\"@[192.0.2.1]", "grüße@bücher.example", "x@[IPv6:2001:db8::1]",
            ]),
            body in prop::sample::select(vec![Body::SevenBit, Body::EightBitMime, Body::BinaryMime]),
        ) {
            let [reason, trace, cipher] = free;
            let [client_name, helo, login, subject, told_queue_id] = optional;
            let optional_reason = helo.clone();
            let mut envelope = sample::envelope(sample::id(1), b"");
            let mut recipient = envelope.recipients[0].clone();
            let mailbox = Mailbox::parse(mailbox).unwrap();
            envelope.reverse_path = ReversePath::Mailbox(mailbox.clone());
            recipient.forward_path = ForwardPath::Mailbox(mailbox);
            let notify = Notify { success: size % 2 == 0, failure: size % 3 == 0, delay: size % 5 == 0 };
            recipient.parameters = RcptParameters {
                notify: due.map(|_| notify), orcpt: due.map(|_| "rfc822;a+2Bb@example.org".into()),
            };
            envelope.parameters = MailParameters {
                size: due.map(|_| size), body: due.map(|_| body), smtputf8: size % 7 == 0,
                ret: due.map(|_| Ret::Hdrs), envid: due.map(|_| "x+2By".into()),
                require_tls: size % 2 == 0, by: due.map(|_| "-7;NT".into()), hold_for: due.map(|_| "7".into()),
                hold_until: due.map(|_| "2026-12-24T12:00:00Z".into()), mt_priority: due.map(|_| "-3".into()),
            };
            envelope.block = due.map(|at| Block { at, by: BlockedBy::Limit, reason: optional_reason });
            envelope.treatment = Treatment { normalize: size % 2 == 0, without_sender: size % 3 == 0 };
            envelope.recipients = recipients
                .into_iter()
                .map(|(upstream, state)| Recipient { upstream, state, ..recipient.clone() })
                .collect();
            envelope.session = SessionFacts {
                client: address.into(), client_name, helo, login, ..envelope.session
            };
            envelope.session.tls = (size % 2 == 0).then_some(TlsFacts { version: String::new(), cipher });
            let envelope = Envelope { reason, trace, subject, told_queue_id, release, due, told, size, ..envelope };
            let text = envelope.encode().unwrap();
            prop_assert_eq!(Envelope::decode(&text), Ok(envelope));
        }

        #[test]
        fn no_damage_makes_it_panic(at in any::<prop::sample::Index>(), octet in any::<u8>()) {
            let mut octets = text().into_bytes();
            let at = at.index(octets.len());
            octets[at] = octet;
            let _ = Envelope::decode(&String::from_utf8_lossy(&octets));
        }
    }
}
