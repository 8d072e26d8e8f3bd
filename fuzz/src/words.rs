//! Lines, commands, paths, replies, and what is made of replies.

use gatepost::guard::mimicry::{About, Place, Precedents, Shuffle};
use gatepost::guard::{Outcome, Rules, classify as outcome};
use gatepost::smtp::line::{Frame, Framer};
use gatepost::smtp::{Command, Extensions, ForwardPath, Reply, ReversePath, xtext};

use super::{choice, pieces};

/// The same frames whatever the split; no line has a CR, LF or NUL in it; nothing makes the buffer grow.
pub fn line(data: &[u8]) {
    let (size, data) = choice(data);
    let limit = 3 + size / 8;
    assert_eq!(frames(data, 0, limit), frames(data, 1 + size % 8, limit));
}

fn frames(data: &[u8], size: usize, limit: usize) -> Vec<Option<Vec<u8>>> {
    let mut framer = Framer::default();
    let (mut found, mut buffer) = (Vec::new(), Vec::new());
    for piece in pieces(data, size) {
        buffer.extend_from_slice(piece);
        loop {
            let (frame, consumed) = match framer.frame(&buffer, limit) {
                Frame::Incomplete { consumed } => (None, consumed),
                Frame::Line { line, consumed } => {
                    assert!(!line.iter().any(|octet| b"\r\n\0".contains(octet)));
                    assert!(line.len() + 2 <= limit);
                    (Some(Some(line.to_vec())), consumed)
                }
                Frame::TooLong { consumed } | Frame::Faulty { consumed } => (Some(None), consumed),
            };
            buffer.drain(..consumed);
            let Some(frame) = frame else { break };
            found.push(frame);
        }
        assert!(buffer.len() < limit);
    }
    found
}

fn everything() -> Extensions {
    let reply = "250-mx\r\n250-SIZE 0\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250-CHUNKING\r\n250-BINARYMIME\r\n\
                 250-REQUIRETLS\r\n250-DELIVERBY\r\n250-MT-PRIORITY\r\n250 FUTURERELEASE 999999999 2099-01-01T00:00:00Z\r\n";
    let (reply, _) = Reply::parse(reply.as_bytes()).unwrap().unwrap();
    Extensions::from_ehlo(&reply)
}

/// What is a command is one line when it is written again, and the same command; nothing is injected.
pub fn command(data: &[u8]) {
    let mut out = Vec::new();
    let command = Command::parse(data);
    match &command {
        Ok(Command::Mail(mail)) => mail.encode(&everything(), &mut out),
        Ok(Command::Rcpt(rcpt)) => rcpt.encode(&everything(), &mut out),
        _ => return,
    }
    let written = out.strip_suffix(b"\r\n").unwrap();
    assert!(!written.iter().any(u8::is_ascii_control), "{}", out.escape_ascii());
    assert_eq!(Command::parse(written), command);
    let mut bare = Vec::new();
    match &command {
        Ok(Command::Mail(mail)) => mail.encode(&Extensions::default(), &mut bare),
        Ok(Command::Rcpt(rcpt)) => rcpt.encode(&Extensions::default(), &mut bare),
        _ => {}
    }
    assert!(bare.ends_with(b">\r\n"), "a parameter for one that knows none: {}", bare.escape_ascii());
}

/// A path is the same when it is written and read again, alone and within a command; xtext decodes to what was encoded.
pub fn path(data: &[u8]) {
    assert_eq!(xtext::decode(&xtext::encode(data)).as_deref(), Some(data));
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(path) = ForwardPath::parse(text) {
        let Ok(Command::Rcpt(rcpt)) = Command::parse(format!("RCPT TO:{path}").as_bytes()) else {
            panic!("{path} is no path within a command")
        };
        assert_eq!(rcpt.forward_path, path);
        assert_eq!(path.comparison_key(), path.comparison_key().to_lowercase());
    }
    if let Ok(path) = ReversePath::parse(text) {
        assert_eq!(path.as_str().parse(), Ok(path.clone()));
        let Ok(Command::Mail(mail)) = Command::parse(format!("MAIL FROM:{path}").as_bytes()) else {
            panic!("{path} is no path within a command")
        };
        assert_eq!(mail.reverse_path, path);
    }
}

/// What is told of a reply is whole lines of printable ASCII, of at most 512 octets, with the code of the reply in each.
fn told(reply: &Reply) -> Vec<u8> {
    let mut out = Vec::new();
    reply.encode(&mut out);
    for line in out.split_inclusive(|&octet| octet == b'\n') {
        let text = line.strip_suffix(b"\r\n").unwrap();
        assert!(
            line.len() <= 512 && text.iter().all(|octet| matches!(octet, b' '..=b'~')),
            "{}",
            line.escape_ascii()
        );
        assert!(text.starts_with(reply.code.to_string().as_bytes()));
    }
    let (again, length) = Reply::parse(&out).unwrap().unwrap();
    assert_eq!((again.code, length), (reply.code, out.len()), "it became more than one reply");
    out
}

/// One reply in, one reply out, which is the same when it comes in again; the same whatever the split.
pub fn reply(data: &[u8]) {
    let Ok(Some((reply, taken))) = Reply::parse(data) else { return };
    assert!(taken <= data.len() && data[..taken].ends_with(b"\r\n"));
    assert!(
        (0..taken).rev().take(64).all(|end| Reply::parse(&data[..end]) == Ok(None)),
        "half of it was enough"
    );
    assert_eq!(Reply::parse(&data[..taken]), Ok(Some((reply.clone(), taken))));
    let once = told(&reply);
    let (again, _) = Reply::parse(&once).unwrap().unwrap();
    assert_eq!(told(&again), once);
    drop(Extensions::from_ehlo(&reply));
    assert!(!reply.to_string().contains(['\r', '\n']), "a log line of two");
}

/// What was accepted, or may yet be, is no proof that somebody does not exist.
pub fn classify(data: &[u8]) {
    let Ok(Some((reply, _))) = Reply::parse(data) else { return };
    let counts = outcome(&reply, &Rules::default()) == Outcome::NoSuchRecipient;
    assert!(!counts || reply.code >= 400, "{reply} counts");
}

/// An imitation is one reply with the code, the enhanced code and the number of lines of what it imitates.
pub fn mimicry(data: &[u8]) {
    let Ok(Some((reply, taken))) = Reply::parse(data) else { return };
    let rest = String::from_utf8_lossy(&data[taken..]).into_owned();
    let (known, asked) = rest.split_once(' ').unwrap_or((&rest, ""));
    // No address has one, and one that did would be found over the end of a line.
    if rest.contains(char::is_control) {
        return;
    }
    let (knowns, askeds) = ([known], [asked]);
    for place in [Place::Mail, Place::Rcpt, Place::EndOfData] {
        let at_end = place == Place::EndOfData;
        let mut precedents = Precedents::default();
        let about = About { address: known, envelope: at_end.then_some((asked, &knowns)) };
        let learned = precedents.learn(place, about, &reply);
        let about = About { address: asked, envelope: at_end.then_some((known, &askeds)) };
        let imitation = precedents.imitate(place, about, &mut Shuffle::new(1));
        told(&imitation.reply);
        assert_eq!(imitation.reply.code, 250);
        if learned {
            assert_eq!(imitation.reply.enhanced, reply.enhanced);
            assert_eq!(imitation.reply.lines().count(), reply.lines().count());
        }
    }
}
