//! What stands in a certificate that we must know: until when it holds, which names it is for, and who it is.
//!
//! A reader of just that much DER (X.690 10, RFC 5280 4.1), for certificates that rustls has taken before: the operator's
//! own, and those of clients that an authority of the operator's has signed. Bounds are checked all the same, and what is
//! not understood is not there.

use crate::clock::Timestamp;

/// The facts of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// It does not hold any longer.
    pub not_after: Timestamp,
    /// subjectAltName dNSName, in lower case; `*.example.org` too.
    pub dns_names: Vec<String>,
    /// subjectAltName rfc822Name.
    pub mailboxes: Vec<String>,
    /// The subject's common names.
    pub common_names: Vec<String>,
}

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0C;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// Explicitly tagged parts of a TBSCertificate.
const VERSION: u8 = 0xA0;
const EXTENSIONS: u8 = 0xA3;
/// GeneralName's choices.
const RFC822_NAME: u8 = 0x81;
const DNS_NAME: u8 = 0x82;
/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// 2.5.29.17
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1D, 0x11];

impl Facts {
    /// Reads a certificate; `None`: it is none that we understand.
    pub fn read(der: &[u8]) -> Option<Self> {
        let mut certificate = Reader(Reader(der).of(SEQUENCE)?);
        let mut body = Reader(certificate.of(SEQUENCE)?);
        body.of(VERSION);
        body.of(INTEGER)?;
        body.of(SEQUENCE)?; // signature
        body.of(SEQUENCE)?; // issuer
        let mut validity = Reader(body.of(SEQUENCE)?);
        validity.next()?;
        let not_after = validity.next().and_then(time)?;
        let common_names = common_names(body.of(SEQUENCE)?);
        let mut facts = Self { not_after, dns_names: Vec::new(), mailboxes: Vec::new(), common_names };
        for (tag, content) in body {
            if tag == EXTENSIONS {
                facts.alternative_names(content);
            }
        }
        Some(facts)
    }

    /// Whose it is, the surest first.
    pub fn identities(&self) -> impl Iterator<Item = &str> {
        self.mailboxes.iter().chain(&self.common_names).map(String::as_str)
    }

    fn alternative_names(&mut self, extensions: &[u8]) {
        let Some(extensions) = Reader(extensions).of(SEQUENCE) else { return };
        for (_, extension) in Reader(extensions) {
            let mut extension = Reader(extension);
            if extension.of(OBJECT_IDENTIFIER) != Some(SUBJECT_ALT_NAME) {
                continue;
            }
            // A BOOLEAN may say that it is critical.
            let Some((_, value)) = extension.find(|(tag, _)| *tag == OCTET_STRING) else { continue };
            let names = Reader(value).of(SEQUENCE).unwrap_or_default();
            for (tag, name) in Reader(names) {
                match (tag, text(name)) {
                    (DNS_NAME, Some(name)) => self.dns_names.push(name.to_ascii_lowercase()),
                    (RFC822_NAME, Some(name)) => self.mailboxes.push(name),
                    _ => {}
                }
            }
        }
    }
}

fn common_names(subject: &[u8]) -> Vec<String> {
    let sets = Reader(subject).filter(|(tag, _)| *tag == SET);
    let attributes = sets.flat_map(|(_, set)| Reader(set));
    let value = |(_, attribute): (u8, &[u8])| {
        let mut attribute = Reader(attribute);
        if attribute.of(OBJECT_IDENTIFIER)? != COMMON_NAME {
            return None;
        }
        let (tag, value) = attribute.next()?;
        matches!(tag, UTF8_STRING | PRINTABLE_STRING | IA5_STRING).then(|| text(value))?
    };
    attributes.filter_map(value).collect()
}

/// Whole text, and nothing in it that could pass for another's: a NUL ends a string elsewhere.
fn text(octets: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(octets).ok()?;
    (!text.is_empty() && !text.chars().any(char::is_control)).then(|| text.to_owned())
}

/// RFC 5280 4.1.2.5: always in UTC and with seconds; two digits of a year up to 49 are of this century.
fn time((tag, octets): (u8, &[u8])) -> Option<Timestamp> {
    let digits = std::str::from_utf8(octets).ok()?.strip_suffix('Z')?;
    let full = match tag {
        UTC_TIME if digits.len() == 12 => {
            let century = if digits.get(..2)? < "50" { "20" } else { "19" };
            format!("{century}{digits}")
        }
        GENERALIZED_TIME if digits.len() == 14 => digits.to_owned(),
        _ => return None,
    };
    if !full.bytes().all(|octet| octet.is_ascii_digit()) {
        return None;
    }
    // RFC 5280 4.1.2.5: 99991231235959Z is no end at all; our calendar ends hours before.
    if full.starts_with("9999") {
        return Some(Timestamp::from_millis(u64::MAX));
    }
    let part = |from: usize, to: usize| full.get(from..to).unwrap_or_default();
    let (year, month, day) = (part(0, 4), part(4, 6), part(6, 8));
    let written = format!("{year}-{month}-{day}T{}:{}:{}Z", part(8, 10), part(10, 12), part(12, 14));
    Timestamp::parse_rfc3339(&written).ok()
}

/// The values of DER that follow each other.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The next one's content, if it has this tag; another stays.
    fn of(&mut self, tag: u8) -> Option<&'a [u8]> {
        if self.0.first() != Some(&tag) {
            return None;
        }
        self.next().map(|(_, content)| content)
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = (u8, &'a [u8]);

    /// Tag and content; tags of more than one octet do not occur.
    fn next(&mut self) -> Option<Self::Item> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let length = if first < 0x80 {
            usize::from(first)
        } else {
            let octets = rest.get(..usize::from(first & 0x7F)).filter(|octets| octets.len() <= 3)?;
            rest = &rest[octets.len()..];
            octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet))
        };
        let content = rest.get(..length)?;
        self.0 = &rest[length..];
        Some((tag, content))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, SanType};

    use super::*;

    fn made(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut parameters = CertificateParams::new(vec!["Mail.Example.org".to_owned()]).unwrap();
        change(&mut parameters);
        parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn what_stands_in_it() {
        let der = made(|parameters| {
            parameters.not_after = rcgen::date_time_ymd(2027, 2, 28);
            parameters.subject_alt_names.push(SanType::DnsName("*.example.org".try_into().unwrap()));
            parameters.subject_alt_names.push(SanType::IpAddress("192.0.2.1".parse().unwrap()));
            parameters.subject_alt_names.push(SanType::Rfc822Name("anna@example.org".try_into().unwrap()));
            parameters.distinguished_name.push(DnType::OrganizationName, "Example");
            parameters.distinguished_name.push(DnType::CommonName, "Ann\u{e4}");
        });
        let facts = Facts::read(&der).unwrap();
        assert_eq!(facts.not_after.to_string(), "2027-02-28T00:00:00.000Z");
        assert_eq!(facts.dns_names, ["mail.example.org", "*.example.org"]);
        assert_eq!(facts.identities().collect::<Vec<_>>(), ["anna@example.org", "Ann\u{e4}"]);
        // RFC 5280 4.1.2.5: from 2050 on GeneralizedTime.
        let late = made(|parameters| parameters.not_after = rcgen::date_time_ymd(2051, 1, 1));
        assert_eq!(Facts::read(&late).unwrap().not_after.to_string(), "2051-01-01T00:00:00.000Z");
    }

    #[test]
    fn a_name_with_a_control_character_is_none() {
        let der = made(|parameters| {
            parameters.distinguished_name.push(DnType::CommonName, "anna\0.evil");
        });
        let names = Facts::read(&der).unwrap().common_names;
        assert!(!names.iter().any(|name| name.contains("anna")), "{names:?}");
    }

    #[test]
    fn broken_ones_are_none_or_less_and_never_a_panic() {
        let der = made(|parameters| {
            parameters.subject_alt_names.push(SanType::Rfc822Name("anna@example.org".try_into().unwrap()));
        });
        for length in 0..der.len() {
            assert_eq!(Facts::read(&der[..length]), None, "{length}");
        }
        for at in 0..der.len() {
            for octet in [0, 0x30, 0x7F, 0x80, 0x84, 0xFF] {
                let mut other = der.clone();
                other[at] = octet;
                let _ = Facts::read(&other);
            }
        }
    }

    #[test]
    fn times() {
        for (tag, text, expected) in [
            (UTC_TIME, "490101000000Z", Some("2049-01-01T00:00:00.000Z")),
            (UTC_TIME, "991231235959Z", Some("1999-12-31T23:59:59.000Z")),
            (UTC_TIME, "4901010000Z", None),
            (UTC_TIME, "490101000000+0100", None),
            (GENERALIZED_TIME, "20500101000000Z", Some("2050-01-01T00:00:00.000Z")),
            (GENERALIZED_TIME, "99991231235959Z", Some("9999-12-30T22:00:00.000Z")),
            (GENERALIZED_TIME, "20501301000000Z", None),
            (GENERALIZED_TIME, "2050 101000000Z", None),
            (INTEGER, "490101000000Z", None),
        ] {
            let found = time((tag, text.as_bytes())).map(|time| time.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }
}
