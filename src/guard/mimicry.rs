//! The 250 of a parked message looks like the upstream's own (CONTRACT, SMTP: a block does not show).
//!
//! Keeps the upstream's last 250 at each of the three places where a blocked account is answered without asking, and makes a
//! new reply of it: the address is exchanged, every queue id replaced by a random one of the same shape. Pure: randomness comes
//! from a [`Shuffle`] that the caller seeds. Does not know who is blocked.

use std::borrow::Cow;
use std::sync::Arc;

use memchr::{memchr, memchr2};
use serde::{Deserialize, Serialize};

use crate::smtp::{Enhanced, Reply};
use crate::visible::one_line;

/// What a reply answers in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// To MAIL.
    Mail,
    /// To RCPT.
    Rcpt,
    /// To the end of data.
    EndOfData,
}

/// A 250 of the upstream, and the address it was about (`""` for the null reverse-path).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Precedent {
    /// The reply, ASCII only. [`SENDER`] and [`RECIPIENT`] stand for those of its message.
    pub reply: Reply,
    /// The address that MAIL or RCPT named, without brackets; at the end of data the Message-ID. ASCII only.
    pub address: String,
}

impl Precedent {
    /// Makes it the precedent of a reply. Many upstreams name a queue id of another shape each time, so its memory is kept.
    fn become_like(&mut self, place: Place, about: About<'_>, reply: &Reply) {
        let mut text = std::mem::take(&mut self.reply.text).into_owned();
        text.clear();
        self.address.clear();
        self.address.push_str(&ascii(about.address));
        if names_somebody(reply) {
            push_pieces(&mut text, place, about, reply);
        } else {
            text.push_str(&ascii(&reply.text));
        }
        self.reply = Reply { code: 250, enhanced: reply.enhanced, text: Cow::Owned(text) };
    }
}

/// Appends the text of a reply that names somebody, as a precedent has it.
#[inline(never)] // see "The code of a message" in docs/performance.md
fn push_pieces(text: &mut String, place: Place, about: About<'_>, reply: &Reply) {
    let address = ascii(about.address);
    as_sent(place, about, reply, |pieces| {
        pieces.for_each(|piece| match piece {
            Piece::Address => text.push_str(&address),
            Piece::Sender => text.push(SENDER),
            Piece::Recipient => text.push(RECIPIENT),
            Piece::Id(same) | Piece::Text(same) => text.push_str(same),
        });
    });
}

impl Default for Precedent {
    /// None yet: it has to become like a reply.
    fn default() -> Self {
        let reply = Reply { code: 250, enhanced: None, text: Cow::Borrowed("") };
        Self { reply, address: String::new() }
    }
}

/// Stands for the reverse-path in the text of a precedent at the end of data.
const SENDER: char = '\u{1}';
/// Stands for a recipient, whichever it was.
const RECIPIENT: char = '\u{2}';

/// What a reply may repeat.
#[derive(Debug, Clone, Copy, Default)]
pub struct About<'a> {
    /// The address of MAIL or RCPT, without brackets; at the end of data the Message-ID, or `""`.
    pub address: &'a str,
    /// At the end of data: the reverse-path and the accepted recipients.
    pub envelope: Option<(&'a str, &'a [&'a str])>,
}

impl<'a> About<'a> {
    /// What a reply to MAIL or RCPT may repeat.
    pub fn address(address: &'a str) -> Self {
        Self { address, envelope: None }
    }

    /// Whether one address is both the sender's and a recipient's, so that a reply's use of it is ambiguous.
    fn is_ambiguous(&self) -> bool {
        let (sender, recipients) = self.envelope.unwrap_or_default();
        recipients.iter().any(|recipient| recipient.eq_ignore_ascii_case(sender))
    }

    /// Whether a Message-ID that is none stands in the text: nobody knows then whether the reply repeats it, or says that
    /// word to everybody.
    fn is_word_of(&self, text: &str) -> bool {
        let id = self.address.trim_matches(['<', '>']);
        !id.is_empty() && !is_message_id(id) && text.contains(&*ascii(id))
    }
}

/// The last 250 at each place, whoever got it. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Precedents {
    /// To MAIL.
    pub mail: Option<Arc<Precedent>>,
    /// To RCPT.
    pub rcpt: Option<Arc<Precedent>>,
    /// To the end of data.
    pub end_of_data: Option<Arc<Precedent>>,
}

/// A reply modelled on a precedent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imitation {
    /// What the client is told.
    pub reply: Reply,
    /// The made-up queue ids in it, for the envelope and the log: the words that were replaced, with a blank between two.
    pub queue_id: Option<String>,
}

/// Random numbers for shapes (SplitMix64); seeded by the caller, so that this file stays pure. Not for secrets.
#[derive(Debug)]
pub struct Shuffle {
    state: u64,
}

impl Shuffle {
    /// Seeds it, with randomness from the operating system.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Picks one character of a short, non-empty alphabet.
    fn one_of(&mut self, alphabet: &[u8]) -> char {
        let index = usize::try_from(self.next() % alphabet.len().max(1) as u64).unwrap_or_default();
        alphabet.get(index).copied().map_or('0', char::from)
    }

    /// Returns a random word of the same shape, see [`same_shape`].
    fn shape(&mut self, word: &str) -> String {
        let letters = if is_hexadecimal(word.as_bytes()) { ..6 } else { ..26 };
        loop {
            let made_up: String = word
                .chars()
                .map(|c| match c {
                    '0'..='9' => self.one_of(b"0123456789"),
                    'A'..='Z' => self.one_of(&CAPITALS[letters]),
                    'a'..='z' => self.one_of(&SMALL_LETTERS[letters]),
                    other => other,
                })
                .collect();
            // By chance a word of few letters may be hexadecimal although its model is not.
            if same_shape(made_up.as_bytes(), word.as_bytes()) {
                return made_up;
            }
        }
    }
}

const CAPITALS: &[u8; 26] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const SMALL_LETTERS: &[u8; 26] = b"abcdefghijklmnopqrstuvwxyz";

/// The longest text of a precedent, in octets: no MTA says more at these places.
const MAX_TEXT: usize = 4096;

impl Precedents {
    /// Makes the 250 for `place` and `about`.
    pub fn imitate(&self, place: Place, about: About<'_>, shuffle: &mut Shuffle) -> Imitation {
        let Some(precedent) = self.at(place) else { return default_reply(place, shuffle) };
        let mut text = String::with_capacity(precedent.reply.text.len() + about.address.len());
        // What was replaced, and by what. A word that stands twice is replaced alike.
        let mut ids: Vec<(&str, String)> = Vec::new();
        let (sender, recipients) = about.envelope.unwrap_or_default();
        // As `Reply::parse` cleans what an upstream says.
        let put = |text: &mut String, name: &str| text.push_str(&one_line(name));
        for piece in Pieces::of(place, &precedent.reply.text, About::address(&precedent.address)) {
            match piece {
                Piece::Address => put(&mut text, about.address),
                Piece::Sender => put(&mut text, sender),
                Piece::Recipient => put(&mut text, recipients.first().copied().unwrap_or_default()),
                Piece::Text(same) => text.push_str(same),
                Piece::Id(word) => {
                    let made_up = match ids.iter().find(|(known, _)| *known == word) {
                        Some((_, made_up)) => made_up.clone(),
                        None => {
                            let made_up = shuffle.shape(word);
                            ids.push((word, made_up.clone()));
                            made_up
                        }
                    };
                    text.push_str(&made_up);
                }
            }
        }
        let reply = Reply { text: Cow::Owned(text), ..precedent.reply.clone() };
        let told: Vec<String> = ids.into_iter().map(|(_, made_up)| made_up).collect();
        Imitation { reply, queue_id: (!told.is_empty()).then(|| told.join(" ")) }
    }

    /// Whether a reply differs from the last one at its place in more than the words that [`Self::imitate`] replaces anyway, or
    /// these have another shape.
    /// Replies other than 250 never do, nor do those to MAIL and RCPT that name a stranger: they are no precedents. Allocates
    /// only if the reply names somebody or is not ASCII.
    pub fn is_news(&self, place: Place, about: About<'_>, reply: &Reply) -> bool {
        if reply.code != 250 || reply.text.len() > MAX_TEXT {
            return false;
        }
        let known = self.at(place);
        let named = names_somebody(reply);
        if let Some(known) = known
            && known.reply.enhanced == reply.enhanced
            && known.reply.text == reply.text
        {
            // Neither address is in it, so every word is the same as before.
            if !named && has_at(about.address) && has_at(&known.address) {
                return false;
            }
        }
        if place == Place::EndOfData && about.is_word_of(&reply.text) {
            return false;
        }
        if named && known.is_some() && about.is_ambiguous() {
            return false;
        }
        let differs = known.is_none_or(|known| {
            if known.reply.enhanced != reply.enhanced {
                return true;
            }
            // Here an address has an `@` wherever it comes from, so that there are only words to compare.
            let at_the_end = place == Place::EndOfData && !named && reply.text.is_ascii();
            if at_the_end && names_nobody(&known.reply.text) {
                return !same_but_for_ids(known.reply.text.as_bytes(), reply.text.as_bytes());
            }
            differs_in_form(known, place, about, reply)
        });
        // At the end of data it may be a Message-ID that the upstream made.
        let is_about_one = named && place != Place::EndOfData;
        differs && !(is_about_one && as_sent(place, about, reply, |new| new.name_a_stranger()))
    }

    /// Takes a reply if [`Self::is_news`] is true of it, and returns whether it is.
    pub fn learn(&mut self, place: Place, about: About<'_>, reply: &Reply) -> bool {
        let is_news = self.is_news(place, about, reply);
        if is_news {
            self.take(place, about, reply);
        }
        is_news
    }

    fn take(&mut self, place: Place, about: About<'_>, reply: &Reply) {
        let known = match place {
            Place::Mail => &mut self.mail,
            Place::Rcpt => &mut self.rcpt,
            Place::EndOfData => &mut self.end_of_data,
        };
        Arc::make_mut(known.get_or_insert_default()).become_like(place, about, reply);
    }

    fn at(&self, place: Place) -> Option<&Precedent> {
        match place {
            Place::Mail => self.mail.as_deref(),
            Place::Rcpt => self.rcpt.as_deref(),
            Place::EndOfData => self.end_of_data.as_deref(),
        }
    }
}

/// What Postfix says; used before there is a precedent.
fn default_reply(place: Place, shuffle: &mut Shuffle) -> Imitation {
    let enhanced = |subject, detail| Enhanced { class: 2, subject, detail };
    match place {
        Place::Mail => Imitation { reply: Reply::fixed(250, enhanced(1, 0), "Ok"), queue_id: None },
        Place::Rcpt => Imitation { reply: Reply::fixed(250, enhanced(1, 5), "Ok"), queue_id: None },
        Place::EndOfData => {
            // A short Postfix queue id: five hexadecimal digits of the time, then five or six of the inode.
            let length = if shuffle.next() & 1 == 0 { 10 } else { 11 };
            let id: String = (0..length).map(|_| shuffle.one_of(b"0123456789ABCDEF")).collect();
            let text = Cow::Owned(format!("Ok: queued as {id}"));
            Imitation { reply: Reply { code: 250, enhanced: Some(enhanced(0, 0)), text }, queue_id: Some(id) }
        }
    }
}

/// Whether there is an `@` in the text.
fn has_at(text: &str) -> bool {
    memchr(b'@', text.as_bytes()).is_some()
}

/// Whether a reply may name somebody. If not, it need not be searched for addresses.
pub fn names_somebody(reply: &Reply) -> bool {
    memchr2(b'@', b'<', reply.text.as_bytes()).is_some()
}

/// Whether neither an address nor what stands for one is in the text of a precedent.
fn names_nobody(text: &str) -> bool {
    let names = |octet: u8| matches!(char::from(octet), '@' | '<' | SENDER | RECIPIENT);
    text.bytes().fold(true, |nobody, octet| nobody & !names(octet))
}

/// Whether a reply differs from the precedent in more than what is replaced anyway.
#[inline(never)] // see "The code of a message" in docs/performance.md
fn differs_in_form(known: &Precedent, place: Place, about: About<'_>, reply: &Reply) -> bool {
    let old = Pieces::of(place, &known.reply.text, About::address(&known.address));
    !as_sent(place, about, reply, |new| old.same_form(new))
}

/// What [`Pieces::same_form`] says of two texts that name nobody; most differ in one word.
fn same_but_for_ids(mut one: &[u8], mut another: &[u8]) -> bool {
    loop {
        let same = one.iter().zip(another).take_while(|(one, another)| one == another).count();
        if same == one.len() && same == another.len() {
            return true;
        }
        let word_ends = |text: &[u8], at| text[at..].iter().take_while(|octet| is_word(**octet)).count() + at;
        let begins = same - one[..same].iter().rev().take_while(|octet| is_word(**octet)).count();
        let (ends, another_ends) = (word_ends(one, same), word_ends(another, same));
        let (id, other) = (&one[begins..ends], &another[begins..another_ends]);
        if !is_id(id) || !same_shape(id, other) {
            return false;
        }
        (one, another) = (&one[ends..], &another[another_ends..]);
    }
}

/// Whether a text is built like a Message-ID (RFC 5322 3.6.4). Clients write what they like there: a mere word must not be
/// taken for what the upstream repeats.
fn is_message_id(text: &str) -> bool {
    has_at(text) && !text.contains([' ', '\t'])
}

/// Calls `then` with the pieces of a reply's text as it would reach a client.
fn as_sent<T>(place: Place, about: About<'_>, reply: &Reply, then: impl FnOnce(Pieces<'_>) -> T) -> T {
    let (text, address) = (ascii(&reply.text), ascii(about.address));
    let Some((sender, recipients)) = about.envelope.filter(|_| names_somebody(reply)) else {
        return then(Pieces::of(place, &text, About::address(&address)));
    };
    let (sender, recipients) = (ascii(sender), recipients.iter().map(|name| ascii(name)).collect::<Vec<_>>());
    let recipients: Vec<&str> = recipients.iter().map(|name| &**name).collect();
    then(Pieces::of(place, &text, About { address: &address, envelope: Some((&sender, &recipients)) }))
}

/// The text as it would reach a client: characters outside ASCII become `?` (`Reply::encode`).
fn ascii(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect())
}

/// A piece of a reply's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece<'a> {
    /// The address the reply is about.
    Address,
    /// The reverse-path.
    Sender,
    /// A recipient.
    Recipient,
    /// A queue id, or a word that looks like one.
    Id(&'a str),
    /// Another word, or one character between words.
    Text(&'a str),
}

/// Splits the text of a reply into pieces, which together make up the text.
struct Pieces<'a> {
    text: &'a str,
    /// `None` if the reply is about no address.
    address: Option<&'a str>,
    sender: Option<&'a str>,
    recipients: &'a [&'a str],
    at: usize,
}

impl<'a> Pieces<'a> {
    fn of(place: Place, text: &'a str, about: About<'a>) -> Self {
        let address = Some(about.address).filter(|address| match place {
            // `<>` in a reply to MAIL is where another MAIL's address would be (Sendmail: `<>... Sender ok`).
            Place::Mail => true,
            Place::Rcpt => !address.is_empty(),
            Place::EndOfData => is_message_id(address),
        });
        let (sender, recipients) = about.envelope.unzip();
        Self { text, address, sender, recipients: recipients.unwrap_or_default(), at: 0 }
    }

    /// Returns the name at this position, if any, and its length.
    fn name(&mut self) -> Option<(Piece<'a>, usize)> {
        // An address without length matches once only.
        if let Some(address) = self.address
            && self.is_address(address)
        {
            self.address = self.address.filter(|address| !address.is_empty());
            return Some((Piece::Address, address.len()));
        }
        let octet = self.text.as_bytes().get(self.at)?;
        match char::from(*octet) {
            SENDER => return Some((Piece::Sender, 1)),
            RECIPIENT => return Some((Piece::Recipient, 1)),
            _ => {}
        }
        let begins = self.at.checked_sub(1).is_none_or(|before| !is_word(self.text.as_bytes()[before]));
        if !begins {
            return None;
        }
        if let Some(recipient) = self.recipients.iter().find(|name| !name.is_empty() && self.is_address(name))
        {
            return Some((Piece::Recipient, recipient.len()));
        }
        let sender = self.sender.filter(|sender| self.is_address(sender))?;
        self.sender = self.sender.filter(|sender| !sender.is_empty());
        Some((Piece::Sender, sender.len()))
    }

    /// Whether an address is among them that is not the command's: where an alias leads, or what the upstream makes
    /// of `<postmaster>`. Nobody else must be told that.
    fn name_a_stranger(mut self) -> bool {
        self.any(|piece| matches!(piece, Piece::Text(text) if has_at(text)))
    }

    fn same_form(mut self, mut other: Pieces<'_>) -> bool {
        loop {
            match (self.next(), other.next()) {
                (None, None) => return true,
                (Some(Piece::Id(one)), Some(Piece::Id(another)))
                    if same_shape(one.as_bytes(), another.as_bytes()) => {}
                (one, another) if one == another => {}
                _ => return false,
            }
        }
    }

    /// Whether the whole address is at this position.
    fn is_address(&self, address: &str) -> bool {
        // Nearly everywhere its first octet already differs.
        let octet = self.text.as_bytes().get(self.at);
        if address
            .as_bytes()
            .first()
            .is_some_and(|first| !octet.is_some_and(|octet| octet.eq_ignore_ascii_case(first)))
        {
            return false;
        }
        let (before, here) = (self.text.get(..self.at), self.text.get(self.at..));
        let (before, here) = (before.unwrap_or_default(), here.unwrap_or_default());
        if address.is_empty() {
            return before.ends_with('<') && here.starts_with('>');
        }
        let Some((found, behind)) = here.split_at_checked(address.len()) else { return false };
        let ends = match behind.as_bytes() {
            [b'.', next, ..] => !next.is_ascii_alphanumeric(),
            [next, ..] => !is_word(*next) && *next != b'@',
            [] => true,
        };
        found.eq_ignore_ascii_case(address) && ends && !before.ends_with(['.', '+', '_', '@'])
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        if let Some((piece, length)) = self.name() {
            self.at += length;
            return Some(piece);
        }
        let rest = self.text.get(self.at..)?;
        let word = rest.bytes().take_while(|octet| is_word(*octet)).count();
        let length = if word > 0 { word } else { rest.chars().next()?.len_utf8() };
        self.at += length;
        let piece = rest.get(..length)?;
        Some(if is_id(piece.as_bytes()) { Piece::Id(piece) } else { Piece::Text(piece) })
    }
}

fn is_word(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || octet == b'-'
}

/// Whether two words have the same shape: digits, capitals, small letters and hyphens at the same places, and both are
/// hexadecimal or neither is.
fn same_shape(one: &[u8], another: &[u8]) -> bool {
    let kind = |octet: u8| match octet {
        b'0'..=b'9' => b'0',
        b'A'..=b'Z' => b'A',
        b'a'..=b'z' => b'a',
        other => other,
    };
    one.len() == another.len()
        && one.iter().zip(another).all(|(one, another)| kind(*one) == kind(*another))
        && is_hexadecimal(one) == is_hexadecimal(another)
}

fn is_hexadecimal(word: &[u8]) -> bool {
    word.iter().all(|octet| *octet == b'-' || octet.is_ascii_hexdigit())
}

/// CONTRACT: a word with a digit in it and at least six characters, or five digits.
fn is_id(word: &[u8]) -> bool {
    let digits = word.iter().filter(|octet| octet.is_ascii_digit()).count();
    digits >= 1 && word.len() >= 6 || digits == 5
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(wire: &str) -> Reply {
        Reply::parse(wire.as_bytes()).unwrap().unwrap().0
    }

    fn learned(place: Place, address: &str, wire: &str) -> Precedents {
        let mut precedents = Precedents::default();
        assert!(precedents.learn(place, About::address(address), &read(wire)));
        precedents
    }

    /// `9`, `A`, `a` for digits, capitals and small letters.
    fn shape(text: &str) -> String {
        text.chars()
            .map(|c| match c {
                '0'..='9' => '9',
                'A'..='Z' => 'A',
                'a'..='z' => 'a',
                other => other,
            })
            .collect()
    }

    #[test]
    fn the_address_is_exchanged() {
        use Place::{Mail, Rcpt};
        for (place, old, wire, new, expected, software) in [
            (
                Rcpt,
                "old@example.org",
                "250 <old@example.org> ok\r\n",
                "n\u{2028}w@example.com",
                "<n?w@example.com> ok",
                "Reply::parse does so",
            ),
            (Rcpt, "old@example.org", "250 2.1.5 Ok\r\n", "new@example.com", "2.1.5 Ok", "Postfix"),
            (Rcpt, "old@example.org", "250 Accepted\r\n", "new@example.com", "Accepted", "Exim"),
            (
                Rcpt,
                "old@Example.org",
                "250 2.1.5 <OLD@example.org>... Recipient ok\r\n",
                "new@example.com",
                "2.1.5 <new@example.com>... Recipient ok",
                "Sendmail",
            ),
            (
                Mail,
                "old@example.org",
                "250 2.1.0 old@example.org... Sender ok\r\n",
                "new@example.com",
                "2.1.0 new@example.com... Sender ok",
                "Sendmail, without brackets",
            ),
            (Mail, "", "250 2.1.0 <>... Sender ok\r\n", "a@b.c", "2.1.0 <a@b.c>... Sender ok", "null before"),
            (Mail, "a@b.c", "250 2.1.0 <a@b.c>... Sender ok\r\n", "", "2.1.0 <>... Sender ok", "null now"),
            (
                Rcpt,
                "a@b.c",
                "250 <ba@b.c> <a@b.cd> <a@b.c.d> <x.a@b.c> a@b.c.\r\n",
                "n",
                "<ba@b.c> <a@b.cd> <a@b.c.d> <x.a@b.c> n.",
                "as a whole",
            ),
            (Rcpt, "a@b.c", "250-a@b.c\r\n250 a@b.c ok\r\n", "n@m", "n@m / n@m ok", "on each line"),
            (
                Rcpt,
                "old12345@example.org",
                "250 <old12345@example.org>\r\n",
                "new67890@example.com",
                "<new67890@example.com>",
                "it is no queue id",
            ),
            (
                Rcpt,
                "a@b.c",
                "250 <a@b.c>\r\n",
                "x\r\n250 y@b.c",
                "<x??250 y@b.c>",
                "nothing in it makes a line",
            ),
            (Rcpt, "ü@b.c", "250 <ü@b.c> ok ü\r\n", "ö@b.c", "<ö@b.c> ok ?", "RFC 6531; sent as ?@b.c"),
        ] {
            let mut precedents = Precedents::default();
            precedents.take(place, About::address(old), &read(wire));
            let imitation = precedents.imitate(place, About::address(new), &mut Shuffle::new(1));
            assert_eq!(imitation.reply.to_string(), format!("250 {expected}"), "{software}");
        }
    }

    #[test]
    fn queue_ids_are_made_up() {
        for (wire, id, software) in [
            ("250 2.0.0 Ok: queued as 4D489100508D\r\n", "4D489100508D", "Postfix"),
            ("250 2.0.0 Ok: queued as 4XyZqr0kLMz9sTw\r\n", "4XyZqr0kLMz9sTw", "Postfix, long ids"),
            ("250 OK id=1tFabc-000000001Ab-2cD3\r\n", "1tFabc-000000001Ab-2cD3", "Exim"),
            ("250 2.0.0 4AOGJfBC012345 Message accepted for delivery\r\n", "4AOGJfBC012345", "Sendmail"),
            ("250 ok 1349174460 qp 13230 by mx1.example.org\r\n", "1349174460 13230", "qmail: both"),
            ("250 OK  1349174460 d9443c01a7336-29ab - gsmtp\r\n", "1349174460 d9443c01a7336-29ab", "Gmail"),
            ("250 ABC123456 queued as ABC123456\r\n", "ABC123456", "the same word twice"),
            (
                "250 2.6.0 <0f1e2d3c@mx.example.org> [InternalId=4398046511106, Hostname=x] Queued mail for delivery\r\n",
                "0f1e2d3c 4398046511106",
                "Exchange, which says a Message-ID as well",
            ),
            ("250 2.6.0 <0f1e2d3c@mx.example.org> Queued mail for delivery\r\n", "0f1e2d3c", "an older one"),
            ("250 2.0.0: 1a2b3c4d Message accepted for delivery\r\n", "1a2b3c4d", "OpenSMTPD"),
            ("250 Queued (0.204 seconds)\r\n", "", "hMailServer: a time is none"),
            ("250 2.0.0 Ok: queued as abcdef\r\n", "", "no digit in it"),
            ("250 2.0.0 Ok 12345 and 1234 and a1234\r\n", "12345", "five digits"),
        ] {
            let precedents = learned(Place::EndOfData, "", wire);
            let mut shuffle = Shuffle::new(7);
            let one = precedents.imitate(Place::EndOfData, About::address(""), &mut shuffle);
            let another = precedents.imitate(Place::EndOfData, About::address(""), &mut shuffle);
            assert_eq!(one.queue_id.as_deref().map_or(String::new(), shape), shape(id), "{software}");
            assert_eq!(shape(&one.reply.text), shape(&read(wire).text), "{software}");
            assert_eq!(one == another, id.is_empty(), "{software}: each has its own");
            if let Some(made_up) = &one.queue_id {
                assert_ne!(made_up, id, "{software}");
                let alike = |of: &str, word: &str| of.split(' ').filter(|other| *other == word).count();
                for (old, new) in id.split(' ').zip(made_up.split(' ')) {
                    let kept = alike(&one.reply.text, new) == alike(&read(wire).text, old);
                    assert!(kept && one.reply.text.contains(new), "{software}: {old} {new}");
                }
            }
        }
    }

    #[test]
    fn what_is_made_up_has_the_same_shape() {
        for seed in 0..200 {
            for word in
                ["12345G", "4D489100508D", "1tFabc-000000001Ab-2cD3", "d9443c01a7336-29ab", "12345", "a2z4y6"]
            {
                let made_up = Shuffle::new(seed).shape(word);
                assert!(same_shape(word.as_bytes(), made_up.as_bytes()), "{word} {made_up}");
            }
        }
    }

    /// A client must not choose which words of the upstream's reply are exchanged.
    #[test]
    fn a_word_is_no_message_id() {
        let reply = |text: &str| read(&format!("250 2.0.0 {text}\r\n"));
        let new = About { address: "<mine@b>", envelope: Some(("a@b", &["c@d"])) };
        for (id, text, is_learned) in [
            ("as", "Message queued as 4F5A000001", false),
            ("<as>", "Message queued as 4F5A000001", false),
            ("queued as", "Message queued as 4F5A000001", false),
            ("\u{fc}", "Message ? queued as 4F5A000001", false),
            ("<1>", "<1> [InternalId=42] Queued mail for delivery", false), // Exchange, and it is not known what is what
            ("as", "Saved.", true),
            ("<>", "Message queued as 4F5A000001", true),
            ("", "Message queued as 4F5A000001", true),
        ] {
            let about = About { address: id, ..new };
            assert_eq!(
                Precedents::default().learn(Place::EndOfData, about, &reply(text)),
                is_learned,
                "{id}"
            );
            // One that is on disk from before.
            let stored = Precedent { reply: reply(text), address: ascii(id).into_owned() };
            let stored = Precedents { end_of_data: Some(Arc::new(stored)), ..Precedents::default() };
            let told = stored.imitate(Place::EndOfData, new, &mut Shuffle::new(1)).reply.text;
            assert_eq!(shape(&told), shape(text), "{id}");
        }
    }

    /// What an upstream repeats of a message at its end is that of this message, not of another's.
    #[test]
    fn the_envelope_is_exchanged() {
        let old = About {
            address: "<1@x>",
            envelope: Some(("bob@x.example", &["Friend@private.example", "other@x.example"])),
        };
        let new = About {
            address: "<2@y>",
            envelope: Some(("thief@y.example", &["victim@y.example", "next@y.example"])),
        };
        let null = About { envelope: Some(("", &["victim@y.example"])), ..new };
        for (known, wire, now, expected, why) in [
            (
                old,
                "250 <1@x> from bob@x.example to <friend@private.example>\r\n",
                new,
                "<2@y> from thief@y.example to <victim@y.example>",
                "each in its place",
            ),
            (old, "250 to <other@x.example>\r\n", new, "to <victim@y.example>", "whichever recipient it was"),
            (old, "250 from <bob@x.example>\r\n", null, "from <>", "null now"),
            (
                null,
                "250 from <>, to victim@y.example\r\n",
                old,
                "from <bob@x.example>, to Friend@private.example",
                "null before",
            ),
            (
                old,
                "250 bob@x.example.org notbob@x.example\r\n",
                new,
                "bob@x.example.org notbob@x.example",
                "as a whole",
            ),
            (old, "250 thanks, bob\r\n", new, "thanks, bob", "nobody"),
            (
                About { envelope: Some(("", &["postmaster", ""])), ..old },
                "250 ask postmaster@mta.example, or postmaster <>\r\n",
                new,
                "ask postmaster@mta.example, or victim@y.example <thief@y.example>",
                "without a domain",
            ),
        ] {
            let mut precedents = Precedents::default();
            assert!(precedents.learn(Place::EndOfData, known, &read(wire)));
            let kept = &precedents.end_of_data.as_ref().unwrap().reply.text;
            assert!(!kept.contains("private.example"), "{why}: {kept:?}");
            let imitation = precedents.imitate(Place::EndOfData, now, &mut Shuffle::new(1));
            assert_eq!(imitation.reply.text, expected, "{why}");
            assert!(
                !precedents.learn(Place::EndOfData, now, &imitation.reply),
                "{why}: its own imitation is no news"
            );
        }
        let myself = About { address: "", envelope: Some(("bob@x.example", &["bob@x.example"])) };
        let mut precedents = Precedents::default();
        assert!(precedents.learn(Place::EndOfData, old, &read("250 from bob@x.example\r\n")));
        assert!(
            !precedents.learn(Place::EndOfData, myself, &read("250 from bob@x.example\r\n")),
            "or to him?"
        );
    }

    /// A blocked account must not be told an address that is another's.
    #[test]
    fn what_names_a_stranger_is_no_precedent() {
        use Place::{EndOfData, Mail, Rcpt};
        for (place, address, text, is_learned) in [
            (Rcpt, "\"anna\"@x.example", "<anna@x.example>... Recipient ok", false), // without the quotes
            (Rcpt, "postmaster", "<postmaster@mail.example>... Recipient ok", false),
            (Rcpt, "info@x.example", "<info@x.example>, that is <boss@x.example>", false),
            (Rcpt, "info@x.example", "<INFO@x.example>... Recipient ok", true),
            (Rcpt, "postmaster", "postmaster... Recipient ok", true),
            (Mail, "\"chef\"@x.example", "chef@x.example... Sender ok", false),
            (Mail, "", "<>... Sender ok", true),
            (EndOfData, "", "<0f1e2d3c@mail.example> Queued mail for delivery", true),
        ] {
            let reply = read(&format!("250 {text}\r\n"));
            for mut known in [Precedents::default(), learned(place, "a@b.c", "250 welcome\r\n")] {
                assert_eq!(known.learn(place, About::address(address), &reply), is_learned, "{text}");
            }
        }
    }

    #[test]
    fn what_is_hexadecimal_stays_so() {
        let precedents = learned(Place::EndOfData, "", "250 2.0.0 0F00BA and 0f-00ba and 0g00ba\r\n");
        let mut shuffle = Shuffle::new(3);
        for _ in 0..100 {
            let text = precedents.imitate(Place::EndOfData, About::address(""), &mut shuffle).reply.text;
            let [one, _, other, _, _] = text.split(' ').collect::<Vec<_>>()[..] else { panic!("{text}") };
            assert!(one.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b)), "{text}");
            assert!(
                other.bytes().all(|b| b.is_ascii_digit() || b == b'-' || (b'a'..=b'f').contains(&b)),
                "{text}"
            );
        }
    }

    #[test]
    fn before_there_was_one_it_is_postfix() {
        let mut shuffle = Shuffle::new(0);
        let nothing = Precedents::default();
        assert_eq!(
            nothing.imitate(Place::Mail, About::address("a@b"), &mut shuffle).reply.to_string(),
            "250 2.1.0 Ok"
        );
        assert_eq!(
            nothing.imitate(Place::Rcpt, About::address("a@b"), &mut shuffle).reply.to_string(),
            "250 2.1.5 Ok"
        );
        let imitation = nothing.imitate(Place::EndOfData, About::address(""), &mut shuffle);
        let id = imitation.queue_id.unwrap();
        assert_eq!(imitation.reply.to_string(), format!("250 2.0.0 Ok: queued as {id}"));
        assert!(
            (10..=11).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
        );
    }

    #[test]
    fn only_another_form_is_news() {
        let mut precedents = learned(Place::Rcpt, "a@b.c", "250 2.1.5 <a@b.c>... Recipient ok\r\n");
        for (address, wire, news, why) in [
            ("x@y.z", "250 2.1.5 <X@y.z>... Recipient ok\r\n", false, "another address"),
            ("x@y.z", "250 2.1.5 <x@y.z>... Recipient OK\r\n", true, "another text"),
            ("x@y.z", "250 2.1.5 <x@y.z>... Recipient OK\r\n", false, "the same"),
            ("x@y.z", "250 2.1.0 <x@y.z>... Recipient OK\r\n", true, "another enhanced code"),
            ("x@y.z", "250 <x@y.z>... Recipient OK\r\n", true, "none"),
            ("x@y.z", "250 queued 4D489100508D\r\n", true, "another text"),
            ("x@y.z", "250 queued 9CA34561112F\r\n", true, "another shape"),
            ("x@y.z", "250 queued 4D489100508D\r\n", true, "the first shape again"),
            ("x@y.z", "250 queued 1C234567890A\r\n", false, "another queue id"),
            ("x@y.z", "250 queued 1C234567890Z\r\n", true, "not hexadecimal"),
            ("x@y.z", "250 queued 123456\r\n", true, "another length"),
            ("x@y.z", "250 queued 654321\r\n", false, "another queue id"),
            ("x@y.z", "250 queued ü 1234567\r\n", true, "another text"),
            ("x@y.z", "250 queued ü 1234567\r\n", false, "the same, outside ASCII"),
            ("x@y.z", "251 will forward\r\n", false, "not 250"),
            ("x@y.z", "550 5.1.1 no\r\n", false, "not 250"),
        ] {
            assert_eq!(
                precedents.learn(Place::Rcpt, About::address(address), &read(wire)),
                news,
                "{wire} ({why})"
            );
        }
        assert_eq!((precedents.mail, precedents.end_of_data), (None, None));
    }

    prop_compose! {
        fn text()(
            words in proptest::collection::vec(prop_oneof![
                "[A-Za-z0-9-]{1,12}", "[0-9A-F]{6,11}", Just("a@b.c".to_owned()), Just("<A@B.c>".to_owned()),
                "[ -~]{0,9}", Just("ü".to_owned()),
            ], 0..8),
            lines in any::<bool>(),
        ) -> String {
            words.join(if lines { "\n" } else { " " })
        }
    }

    proptest! {
        /// The same lines of the same words, each of the same shape; what goes over the wire is one reply.
        #[test]
        fn the_form_is_kept(text in text(), seed in any::<u64>()) {
            let reply = Reply { code: 250, enhanced: None, text: Cow::Owned(text.clone()) };
            let mut precedents = Precedents::default();
            precedents.take(Place::Rcpt, About::address("a@b.c"), &reply);
            let imitation = precedents.imitate(Place::Rcpt, About::address("x@y.z"), &mut Shuffle::new(seed));
            prop_assert_eq!(shape(&imitation.reply.text).to_lowercase(), shape(&ascii(&text)).to_lowercase());
            prop_assert!(!precedents.learn(Place::Rcpt, About::address("x@y.z"), &imitation.reply), "its own imitation is no news");

            let mut wire = Vec::new();
            imitation.reply.encode(&mut wire);
            let (parsed, length) = Reply::parse(&wire).unwrap().unwrap();
            prop_assert_eq!(length, wire.len());
            prop_assert_eq!(parsed.lines().count(), text.split('\n').count());
        }

        #[test]
        fn the_short_comparison_says_what_the_long_one_does(
            one in "([a-zA-F0-9]{0,7}[ .\\-\n]?){0,5}", another in "([a-zA-F0-9]{0,7}[ .\\-\n]?){0,5}", at in 0_usize..40, id in "[A-F0-9]{4,8}"
        ) {
            let mut changed = one.clone();
            changed.insert_str(at.min(one.len()), &id);
            for (one, another) in [(&one, &another), (&one, &changed), (&changed, &one), (&one, &one)] {
                let pieces = |text| Pieces::of(Place::EndOfData, text, About::address("a@b.c"));
                let said = pieces(one).same_form(pieces(another));
                prop_assert_eq!(same_but_for_ids(one.as_bytes(), another.as_bytes()), said, "{} {}", one, another);
            }
        }

        #[test]
        fn the_pieces_are_the_text(text in any::<String>(), address in any::<String>()) {
            for place in [Place::Mail, Place::Rcpt, Place::EndOfData] {
                let mut found = 0;
                let glued: String = Pieces::of(place, &text, About::address(&address))
                    .map(|piece| match piece {
                        Piece::Address => { found += 1; address.as_str() }
                        Piece::Sender => "\u{1}",
                        Piece::Recipient => "\u{2}",
                        Piece::Id(text) | Piece::Text(text) => text,
                    })
                    .collect();
                prop_assert!(glued.eq_ignore_ascii_case(&text));
                prop_assert!(found <= text.len() + 1);
            }
        }
    }
}
