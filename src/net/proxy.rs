//! The PROXY header, versions 1 and 2, with which a load balancer names its client.
//!
//! Parsing is strict and never reads past the header, because SMTP or TLS follows. Which peers may send one is decided
//! elsewhere. PROXY protocol (HAProxy, doc/proxy-protocol.txt) 2.1, 2.2, 5.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest header of version 1, with its CRLF (2.1).
const MAX_V1: usize = 107;
/// The shortest header of version 1, `PROXY UNKNOWN` CRLF. Up to this length both versions can be read alike.
const SHORTEST: usize = 15;
/// The signature with which version 2 begins (2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Length of the fixed part: signature, version and command, family and protocol, length.
const V2_FIXED: usize = 16;
/// The most octets accepted after the fixed part: addresses take at most 36, the rest are extensions, which are
/// ignored.
const MAX_V2_REST: usize = 4_096;

/// How much of a header has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// At least this many more octets belong to it.
    More(usize),
    /// Complete; it consists of exactly these octets.
    Complete(Origin),
    /// Not a header, and why.
    Broken(&'static str),
}

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The proxy itself: a health check (LOCAL), or a connection of unknown origin (UNKNOWN).
    Own,
    /// A client at this address.
    Client(SocketAddr),
}

/// Why no header was read.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The peer sent something else.
    #[error("{0}")]
    Broken(&'static str),
    /// The connection ended or failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Reads a header and nothing beyond it.
///
/// # Errors
/// See [`ProxyError`].
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Origin, ProxyError> {
    let mut octets = Vec::new();
    loop {
        match examine(&octets) {
            Progress::Complete(origin) => return Ok(origin),
            Progress::Broken(why) => return Err(ProxyError::Broken(why)),
            Progress::More(count) => {
                let begin = octets.len();
                octets.resize(begin + count, 0);
                // Takes what is available: a peer that sent a short line of something else must not keep us waiting.
                let read = stream.read(&mut octets[begin..]).await?;
                octets.truncate(begin + read);
                if read == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
            }
        }
    }
}

/// Examines the octets received so far.
pub fn examine(octets: &[u8]) -> Progress {
    let begins_as = |begin: &[u8]| octets.iter().zip(begin).all(|(octet, expected)| octet == expected);
    if begins_as(b"PROXY ") {
        first_version(octets)
    } else if begins_as(SIGNATURE) {
        second_version(octets)
    } else {
        Progress::Broken("no PROXY header")
    }
}

fn first_version(octets: &[u8]) -> Progress {
    if octets.len() < SHORTEST {
        return Progress::More(SHORTEST - octets.len());
    }
    let Some(line) = octets.strip_suffix(b"\r\n").filter(|_| octets.len() <= MAX_V1) else {
        return match octets.len() {
            MAX_V1.. => Progress::Broken("a PROXY header without an end"),
            _ if octets.contains(&b'\n') => Progress::Broken("a PROXY header with a bare LF"),
            _ => Progress::More(1),
        };
    };
    // Anything after UNKNOWN is to be ignored (2.1).
    if let Some(rest) = line.strip_prefix(b"PROXY UNKNOWN")
        && (rest.is_empty() || rest.starts_with(b" "))
    {
        return Progress::Complete(Origin::Own);
    }
    match std::str::from_utf8(line).ok().and_then(client_of) {
        Some(client) => Progress::Complete(Origin::Client(client)),
        None => Progress::Broken("a PROXY header that is not well formed"),
    }
}

/// Parses `PROXY TCP4 source destination source-port destination-port` and the TCP6 form.
fn client_of(line: &str) -> Option<SocketAddr> {
    let mut words = line.split(' ').skip(1);
    let (family, source, destination) = (words.next()?, words.next()?, words.next()?);
    let (port, destination_port) = (words.next()?, words.next()?);
    let address = match family {
        "TCP4" => {
            destination.parse::<Ipv4Addr>().ok()?;
            IpAddr::V4(source.parse().ok()?)
        }
        "TCP6" => {
            destination.parse::<Ipv6Addr>().ok()?;
            IpAddr::V6(source.parse().ok()?)
        }
        _ => return None,
    };
    decimal(destination_port)?;
    let port = decimal(port)?;
    words.next().is_none().then(|| SocketAddr::new(address, port))
}

/// Parses a port without sign or leading zeros.
fn decimal(text: &str) -> Option<u16> {
    let canonical =
        text.bytes().all(|octet| octet.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    canonical.then(|| text.parse().ok()).flatten()
}

fn second_version(octets: &[u8]) -> Progress {
    let Some((fixed, rest)) = octets.split_at_checked(V2_FIXED) else {
        return Progress::More(V2_FIXED - octets.len());
    };
    let &[.., version_and_command, family, high, low] = fixed else {
        return Progress::Broken("no PROXY header");
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_V2_REST {
        return Progress::Broken("a PROXY header that is too long");
    }
    if rest.len() < length {
        return Progress::More(length - rest.len());
    }
    if rest.len() > length {
        return Progress::Broken("octets after a PROXY header");
    }
    match (version_and_command, family) {
        (0x20, _) => Progress::Complete(Origin::Own), // LOCAL
        (0x21, 0x11) => client(rest.first_chunk::<4>().copied().map(IpAddr::from), rest.get(8..10)),
        (0x21, 0x21) => client(rest.first_chunk::<16>().copied().map(IpAddr::from), rest.get(32..34)),
        // A client without a usable address must not be taken for the proxy.
        (0x21, _) => Progress::Broken("a PROXY header whose client is not on TCP over IPv4 or IPv6"),
        _ => Progress::Broken("a PROXY header of an unknown version or command"),
    }
}

fn client(address: Option<IpAddr>, port: Option<&[u8]>) -> Progress {
    match (address, port) {
        (Some(address), Some(&[high, low])) => {
            Progress::Complete(Origin::Client(SocketAddr::new(address, u16::from_be_bytes([high, low]))))
        }
        _ => Progress::Broken("a PROXY header that is too short for its addresses"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    fn addresses(source: IpAddr, port: u16) -> Vec<u8> {
        let octets = |address: IpAddr| match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        [octets(source), octets(source), port.to_be_bytes().to_vec(), vec![0, 25]].concat()
    }

    /// Reads from a stream that yields at most `at_once` octets per read; also returns what is left.
    async fn read_all(octets: &[u8], at_once: usize) -> (Result<Origin, String>, usize) {
        let (mut near, mut far) = tokio::io::duplex(at_once);
        let sent = octets.to_vec();
        let writing = tokio::spawn(async move {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut far, &sent).await;
        });
        let origin = read(&mut near).await.map_err(|error| error.to_string());
        let mut rest = Vec::new();
        let _ = near.read_to_end(&mut rest).await;
        writing.await.unwrap();
        (origin, rest.len())
    }

    #[tokio::test]
    async fn headers() {
        let client = |text: &str| Some(Origin::Client(text.parse().unwrap()));
        let v4 = addresses("192.0.2.1".parse().unwrap(), 56324);
        let v6 = addresses("2001:db8::1".parse().unwrap(), 1);
        let mut broken_signature = v2(0x20, 0, &[]);
        broken_signature[11] = b'\r';
        for (header, expected) in [
            (b"PROXY TCP4 192.0.2.1 192.0.2.9 56324 587\r\n".to_vec(), client("192.0.2.1:56324")),
            (b"PROXY TCP6 2001:db8::1 2001:db8::9 1 587\r\n".to_vec(), client("[2001:db8::1]:1")),
            (b"PROXY UNKNOWN\r\n".to_vec(), Some(Origin::Own)),
            (b"PROXY UNKNOWN ffff::1 whatever 65535\r\n".to_vec(), Some(Origin::Own)),
            (v2(0x21, 0x11, &v4), client("192.0.2.1:56324")),
            (v2(0x21, 0x21, &v6), client("[2001:db8::1]:1")),
            (v2(0x21, 0x11, &[v4.clone(), vec![4, 0, 1, 0]].concat()), client("192.0.2.1:56324")), // with extensions
            (v2(0x20, 0x00, &[]), Some(Origin::Own)),
            (v2(0x20, 0x11, &v4), Some(Origin::Own)), // LOCAL: the addresses are ignored
            (b"EHLO client.example\r\n".to_vec(), None),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00".to_vec(), None),
            (b"PROXY TCP4 192.0.2.1 192.0.2.9 56324 587\n\r\n".to_vec(), None),
            (b"PROXY TCP4 192.0.2.1 192.0.2.9 56324\r\n".to_vec(), None),
            (b"PROXY TCP4 192.0.2.1 192.0.2.9 56324 587 1\r\n".to_vec(), None),
            (b"PROXY TCP4  192.0.2.1 192.0.2.9 56324 587\r\n".to_vec(), None),
            (b"PROXY TCP4 192.0.2.1 192.0.2.9 +6324 587\r\n".to_vec(), None),
            (b"PROXY TCP4 192.0.2.1 192.0.2.9 056324 587\r\n".to_vec(), None),
            (b"PROXY TCP4 192.0.2.1 192.0.2.9 65536 587\r\n".to_vec(), None),
            (b"PROXY TCP4 2001:db8::1 2001:db8::9 1 587\r\n".to_vec(), None),
            (b"PROXY UNKNOWNX\r\n".to_vec(), None),
            (b"proxy UNKNOWN\r\n".to_vec(), None),
            ([&b"PROXY UNKNOWN "[..], &[b'x'; 100], b"\r\n"].concat(), None),
            (v2(0x21, 0x00, &[]), None),       // UNSPEC
            (v2(0x21, 0x12, &v4), None),       // UDP
            (v2(0x21, 0x31, &[0; 216]), None), // AF_UNIX
            (v2(0x21, 0x21, &v4), None),
            (v2(0x11, 0x11, &v4), None),
            (v2(0x22, 0x11, &v4), None),
            (v2(0x20, 0x00, &[0; 4097]), None),
            (broken_signature, None),
        ] {
            for at_once in [1, 7, 10_000] {
                let with_more = [&header[..], b"EHLO x\r\n"].concat();
                let (origin, left) = read_all(&with_more, at_once).await;
                assert_eq!(origin.ok(), expected, "{}", header.escape_ascii());
                if expected.is_some() {
                    assert_eq!(left, 8, "{}", header.escape_ascii());
                }
            }
            // cut short
            let (origin, _) = read_all(&header[..header.len() - 1], 10_000).await;
            assert!(origin.is_err(), "{}", header.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn every_address_comes_through(address: IpAddr, port: u16) {
            let family = if address.is_ipv4() { ("TCP4", 0x11) } else { ("TCP6", 0x21) };
            let expected = Progress::Complete(Origin::Client(SocketAddr::new(address, port)));
            let line = format!("PROXY {} {address} {address} {port} 25\r\n", family.0);
            prop_assert_eq!(examine(line.as_bytes()), expected);
            prop_assert_eq!(examine(&v2(0x21, family.1, &addresses(address, port))), expected);
        }

        #[test]
        fn no_octets_are_a_trap(octets: Vec<u8>, begin in 0..3usize) {
            let begin: &[u8] = [&b""[..], b"PROXY TCP4 ", &SIGNATURE[..]][begin];
            if let Progress::More(count) = examine(&[begin, &octets].concat()) {
                prop_assert!((1..=MAX_V2_REST).contains(&count));
            }
        }
    }
}
