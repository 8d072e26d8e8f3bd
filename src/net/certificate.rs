//! The facts of a certificate that we need: when it expires, which names it is for, and whom it identifies.
//!
//! `x509-parser` only parses and verifies nothing. It is given only certificates that are trusted already: the operator's own,
//! those that the operator has named, and those of clients that one of the operator's authorities has signed.

use rustls::pki_types::UnixTime;
use x509_parser::prelude::{ASN1Time, FromDer as _, GeneralName, X509Certificate};

use crate::clock::Timestamp;

/// The facts of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// End of validity (notAfter).
    pub not_after: Timestamp,
    /// The dNSName entries of subjectAltName in lower case, wildcards such as `*.example.org` included.
    pub dns_names: Vec<String>,
    /// The rfc822Name entries of subjectAltName.
    pub mailboxes: Vec<String>,
    /// The subject's common names.
    pub common_names: Vec<String>,
}

impl Facts {
    /// Parses a DER certificate; `None` if it is not one.
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default();
        let common_names = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        let mut facts = Self {
            not_after: Timestamp::from_millis(seconds.saturating_mul(1_000)),
            dns_names: Vec::new(),
            mailboxes: Vec::new(),
            common_names: common_names.filter_map(text).collect(),
        };
        // A certificate in which the extension is repeated has no names.
        let alternative = certificate.subject_alternative_name().ok().flatten();
        for name in alternative.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => {
                    facts.dns_names.extend(text(name).map(|name| name.to_ascii_lowercase()));
                }
                GeneralName::RFC822Name(name) => facts.mailboxes.extend(text(name)),
                _ => {}
            }
        }
        Some(facts)
    }

    /// The names of its owner, the most reliable first.
    pub fn identities(&self) -> impl Iterator<Item = &str> {
        self.mailboxes.iter().chain(&self.common_names).map(String::as_str)
    }
}

/// Whether a DER certificate is valid at this time (RFC 5280 4.1.2.5).
pub fn is_in_time(der: &[u8], now: UnixTime) -> bool {
    let now = i64::try_from(now.as_secs()).ok().and_then(|now| ASN1Time::from_timestamp(now).ok());
    let certificate = X509Certificate::from_der(der).ok();
    certificate.zip(now).is_some_and(|((_, certificate), now)| certificate.validity().is_valid_at(now))
}

/// Rejects names that could pass for another: a NUL ends a string in other software.
fn text(name: &str) -> Option<String> {
    (!name.is_empty() && !name.chars().any(char::is_control)).then(|| name.to_owned())
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
        // "No expiry" (RFC 5280 4.1.2.5); our calendar ends earlier.
        let endless = made(|parameters| parameters.not_after = rcgen::date_time_ymd(9999, 12, 31));
        assert!(Facts::read(&endless).unwrap().not_after.to_string().starts_with("9999-12-30"));
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
}
