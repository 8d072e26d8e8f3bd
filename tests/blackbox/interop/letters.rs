//! What is sent: five kinds of mail, and how to tell that one arrived as it was sent.

use crate::support::mta::DOMAIN;

/// The sender of all letters.
pub(crate) const SENDER: &str = "alice@mta.example";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// ASCII, with the lines that need care: dots, blanks at the end, `From `.
    Plain,
    EightBit,
    /// [`LARGE`] octets at least.
    Large,
    /// [`MANY`] recipients.
    Many,
    /// Between two good ones.
    Refused,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [Self::Plain, Self::EightBit, Self::Large, Self::Many, Self::Refused];

    /// The head of its column.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::EightBit => "8-bit",
            Self::Large => "4 MiB",
            Self::Many => "100 recipients",
            Self::Refused => "one refused among three",
        }
    }
}

const LARGE: usize = 4 << 20;
const MANY: usize = 100;

/// How much of a letter is the client's to change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keeps {
    /// Nothing: it takes a whole message.
    Message,
    /// It writes the header itself.
    Body,
}

/// One mail, line ends as CRLF.
pub(crate) struct Letter {
    pub(crate) kind: Kind,
    pub(crate) subject: String,
    /// One of [`Kind::Refused`] begins with `nobody`.
    pub(crate) recipients: Vec<String>,
    header: String,
    pub(crate) body: Vec<u8>,
}

impl Letter {
    /// `tag` tells it from all others in the house.
    pub(crate) fn new(kind: Kind, keeps: Keeps, tag: &str) -> Self {
        let subject = format!("{} {tag}", kind.title());
        let recipients: Vec<String> = match kind {
            Kind::Many => (1..=MANY).map(|number| format!("bob+{number}@{DOMAIN}")).collect(),
            Kind::Refused => {
                ["carol", &format!("nobody-{tag}"), "dave"].map(|name| format!("{name}@{DOMAIN}")).into()
            }
            Kind::Plain | Kind::EightBit | Kind::Large => vec![format!("carol@{DOMAIN}")],
        };
        let mut header = format!(
            "Date: Tue, 24 Nov 2026 16:05:28 +0000\r\nFrom: Alice <{SENDER}>\r\nSubject: {subject}\r\n\
             Message-ID: <{}@client.example>\r\n",
            subject.replace(' ', ".")
        );
        if kind == Kind::EightBit {
            header += "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n";
        }
        let mut body = b"Hello.\r\n.a line that begins with a dot\r\n..two\r\n.\r\nFrom here on: a line that mbox would quote\r\n\r\n\
                         \x20a blank at the end \r\n\ta tab\t\r\n"
            .to_vec();
        match kind {
            Kind::EightBit => {
                body.extend_from_slice("Grüße, привет, 你好.\r\n".as_bytes());
                if keeps == Keeps::Message {
                    // Nobody's UTF-8.
                    body.extend_from_slice(b"Gr\xfc\xdfe \x80\xff\x9d.\r\n");
                }
            }
            Kind::Large => {
                for number in 0.. {
                    if body.len() >= LARGE {
                        break;
                    }
                    let dots = &"..."[..number % 4];
                    body.extend_from_slice(
                        format!("{dots}line {number} of a large message {}\r\n", "x".repeat(number % 61))
                            .as_bytes(),
                    );
                }
            }
            Kind::Plain | Kind::Many | Kind::Refused => {}
        }
        body.extend_from_slice(b"The end.\r\n");
        Self { kind, subject, recipients, header, body }
    }

    /// Header and body.
    pub(crate) fn message(&self) -> Vec<u8> {
        [self.header.as_bytes(), b"\r\n", &self.body].concat()
    }

    /// Those that are there.
    pub(crate) fn good(&self) -> impl Iterator<Item = &str> {
        self.recipients.iter().map(String::as_str).filter(|recipient| !recipient.starts_with("nobody"))
    }

    /// What is wrong with what arrived; fields in front of the header are allowed.
    pub(crate) fn differs(&self, arrived: &[u8], keeps: Keeps) -> Option<String> {
        let wanted = match keeps {
            Keeps::Message => self.message(),
            Keeps::Body => [b"\r\n\r\n", &self.body[..]].concat(),
        };
        let tail = &arrived[arrived.len().saturating_sub(wanted.len())..];
        let header = arrived
            .windows(4)
            .position(|octets| octets == b"\r\n\r\n")
            .map_or(arrived, |end| &arrived[..end + 2]);
        let named = format!("\r\nSubject: {}\r\n", self.subject);
        let body_begins_there =
            keeps == Keeps::Message || header.len() + 2 + self.body.len() == arrived.len();
        if tail == wanted && body_begins_there && crate::support::contains(header, named.as_bytes()) {
            return None;
        }
        let at = tail.iter().zip(&wanted).position(|(one, other)| one != other);
        let shown = |octets: &[u8], at: usize| {
            crate::support::shown(
                &octets[at.saturating_sub(60).min(octets.len())..(at + 60).min(octets.len())],
            )
        };
        let at = at.unwrap_or(0);
        Some(format!(
            "{}: {} octets arrived, the last {} should be as sent; at {at}: {} instead of {}\nheader: {}",
            self.subject,
            arrived.len(),
            wanted.len(),
            shown(tail, at),
            shown(&wanted, at),
            String::from_utf8_lossy(header)
        ))
    }
}

/// Line ends as a text file on Unix has them.
pub(crate) fn lf(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(|&octet| octet != b'\r').collect()
}
