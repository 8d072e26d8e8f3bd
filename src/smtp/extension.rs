//! Service extensions: what the other side offers in its EHLO reply (RFC 5321 4.1.1.1).

use super::Reply;
use super::further::Further;

/// What an upstream offered. Unknown keywords are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extensions {
    /// PIPELINING (RFC 2920)
    pub pipelining: bool,
    /// SIZE (RFC 1870): the maximum in octets; `Some(None)` without a value or with 0 (no fixed maximum).
    pub size: Option<Option<u64>>,
    /// 8BITMIME (RFC 6152)
    pub eight_bit_mime: bool,
    /// SMTPUTF8 (RFC 6531)
    pub smtputf8: bool,
    /// DSN (RFC 3461)
    pub dsn: bool,
    /// CHUNKING (RFC 3030)
    pub chunking: bool,
    /// BINARYMIME (RFC 3030)
    pub binary_mime: bool,
    /// ENHANCEDSTATUSCODES (RFC 2034)
    pub enhanced_status_codes: bool,
    /// STARTTLS (RFC 3207)
    pub starttls: bool,
    /// AUTH (RFC 4954): the mechanisms, in upper case.
    pub auth: Vec<String>,
    /// XCLIENT (Postfix XCLIENT_README): the attribute names, in upper case; empty if it is not offered.
    pub xclient: Vec<String>,
    /// REQUIRETLS, LIMITS, DELIVERBY, FUTURERELEASE, MT-PRIORITY
    pub further: Further,
}

/// How many SASL mechanisms and how many XCLIENT attributes are kept: several times as many as any server has, and few
/// enough to compare each with each.
const MAX_NAMES: usize = 32;

impl Extensions {
    /// Returns a copy without the names of AUTH and XCLIENT, which only whoever holds the connection needs.
    pub fn for_mail(&self) -> Self {
        Self { auth: Vec::new(), xclient: Vec::new(), further: self.further.clone(), ..*self }
    }

    /// Parses the reply to EHLO. A refusal offers nothing.
    pub fn from_ehlo(reply: &Reply) -> Self {
        let mut offered = Self::default();
        if !reply.is_completion() {
            return offered;
        }
        // ehlo-ok-rsp: the first line is the greeting, whatever it looks like.
        for line in reply.lines().skip(1) {
            offered.add(line);
        }
        // RFC 6531 3.1: a server that offers SMTPUTF8 announces 8BITMIME; so must we when we pass the offer on.
        offered.smtputf8 &= offered.eight_bit_mime;
        offered
    }

    /// Returns what two upstreams have in common, which is what can be promised if either may get the message. The
    /// smaller maximum size counts, even if only one names any.
    pub fn common(&self, other: &Self) -> Self {
        // Every field is named, so that none can be forgotten.
        let Self {
            pipelining,
            size,
            eight_bit_mime,
            smtputf8,
            dsn,
            chunking,
            binary_mime,
            enhanced_status_codes,
            starttls,
            auth,
            xclient,
            further,
        } = self;
        let both = |ours: &[String], theirs: &[String]| -> Vec<String> {
            ours.iter().filter(|word| theirs.contains(word)).cloned().collect()
        };
        Self {
            pipelining: *pipelining && other.pipelining,
            size: match (*size, other.size) {
                (Some(ours), Some(theirs)) => Some(ours.into_iter().chain(theirs).min()),
                (one, another) => one.or(another),
            },
            eight_bit_mime: *eight_bit_mime && other.eight_bit_mime,
            smtputf8: *smtputf8 && other.smtputf8,
            dsn: *dsn && other.dsn,
            chunking: *chunking && other.chunking,
            binary_mime: *binary_mime && other.binary_mime,
            enhanced_status_codes: *enhanced_status_codes && other.enhanced_status_codes,
            starttls: *starttls && other.starttls,
            auth: both(auth, &other.auth),
            xclient: both(xclient, &other.xclient),
            further: further.common(&other.further),
        }
    }

    fn add(&mut self, line: &str) {
        // Servers wrote `KEYWORD=value` before RFC 1869.
        let mut words = line.split([' ', '\t', '=']).filter(|word| !word.is_empty());
        let Some(keyword) = words.next() else { return };
        match keyword.to_ascii_uppercase().as_str() {
            "PIPELINING" => self.pipelining = true,
            "SIZE" => self.size = Some(maximum(words.next())),
            "8BITMIME" => self.eight_bit_mime = true,
            "SMTPUTF8" => self.smtputf8 = true,
            "DSN" => self.dsn = true,
            "CHUNKING" => self.chunking = true,
            "BINARYMIME" => self.binary_mime = true,
            "ENHANCEDSTATUSCODES" => self.enhanced_status_codes = true,
            "STARTTLS" => self.starttls = true,
            // Some servers list it twice, the second time as `AUTH=`.
            "AUTH" => {
                for mechanism in words.map(str::to_ascii_uppercase) {
                    if self.auth.len() < MAX_NAMES && !self.auth.contains(&mechanism) {
                        self.auth.push(mechanism);
                    }
                }
            }
            "XCLIENT" => self.xclient = words.take(MAX_NAMES).map(str::to_ascii_uppercase).collect(),
            _ => self.further.add(line),
        }
    }
}

/// RFC 1870 4: 0 means that there is no fixed maximum.
fn maximum(value: Option<&str>) -> Option<u64> {
    value?.parse().ok().filter(|&octets| octets > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(octets: &[u8]) -> Extensions {
        let (reply, taken) = Reply::parse(octets).unwrap().unwrap();
        assert_eq!(taken, octets.len());
        Extensions::from_ehlo(&reply)
    }

    /// Comparing each with each of the thousands that fit into a reply would take seconds.
    #[test]
    fn endless_names_are_not_kept() {
        let names = |line: usize| (0..80).map(|name| format!(" X{line}-{name}")).collect::<String>();
        let auth: String = (0..90).map(|line| format!("250-AUTH PLAIN{}\r\n", names(line))).collect();
        let offered = read(format!("250-a\r\n{auth}250-XCLIENT LOGIN{}\r\n250 DSN\r\n", names(0)).as_bytes());
        assert_eq!((offered.auth.len(), offered.xclient.len()), (32, 32));
        assert!(offered.auth[0] == "PLAIN" && offered.xclient[0] == "LOGIN" && offered.dsn);
    }

    #[test]
    fn postfix() {
        let offered = read(
            b"250-mx.example.org\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-VRFY\r\n250-ETRN\r\n250-STARTTLS\r\n\
            250-XCLIENT NAME ADDR PROTO HELO REVERSE_NAME PORT LOGIN DESTADDR DESTPORT\r\n\
            250-AUTH PLAIN LOGIN\r\n250-AUTH=PLAIN LOGIN\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-DSN\r\n\
            250-SMTPUTF8\r\n250 CHUNKING\r\n",
        );
        let attributes = "NAME ADDR PROTO HELO REVERSE_NAME PORT LOGIN DESTADDR DESTPORT";
        assert_eq!(
            offered,
            Extensions {
                pipelining: true,
                size: Some(Some(10_240_000)),
                eight_bit_mime: true,
                smtputf8: true,
                dsn: true,
                chunking: true,
                binary_mime: false,
                enhanced_status_codes: true,
                starttls: true,
                auth: vec!["PLAIN".to_owned(), "LOGIN".to_owned()],
                xclient: attributes.split(' ').map(str::to_owned).collect(),
                further: Further::default(),
            }
        );
        let for_mail = offered.for_mail();
        assert_eq!(for_mail, Extensions { auth: Vec::new(), xclient: Vec::new(), ..offered });
    }

    #[test]
    fn in_common() {
        let one = read(b"250-a\r\n250-PIPELINING\r\n250-DSN\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-AUTH PLAIN LOGIN\r\n250 XCLIENT ADDR LOGIN\r\n");
        let other = read(b"250-b\r\n250-DSN\r\n250-CHUNKING\r\n250-AUTH LOGIN\r\n250 XCLIENT LOGIN NAME\r\n");
        let login = vec!["LOGIN".to_owned()];
        let expected = Extensions { dsn: true, auth: login.clone(), xclient: login, ..Extensions::default() };
        assert_eq!((one.common(&other), other.common(&one)), (expected.clone(), expected));
        assert_eq!(one.common(&one), one);
        for (one, other, both) in [
            (None, None, None),
            (None, Some(None), Some(None)),
            (None, Some(Some(10)), Some(Some(10))),
            (Some(None), Some(Some(10)), Some(Some(10))),
            (Some(Some(20)), Some(Some(10)), Some(Some(10))),
        ] {
            let size = |size| Extensions { size, ..Extensions::default() };
            assert_eq!(size(one).common(&size(other)), size(both));
            assert_eq!(size(other).common(&size(one)), size(both));
        }
    }

    #[test]
    fn oddities() {
        assert_eq!(read(b"250 PIPELINING\r\n"), Extensions::default()); // a greeting
        assert_eq!(read(b"550-no\r\n550 PIPELINING\r\n"), Extensions::default());
        for (line, size) in [
            ("SIZE", Some(None)),
            ("size 0", Some(None)),
            ("Size 1000", Some(Some(1000))),
            ("SIZE=1000", Some(Some(1000))),
            ("SIZE 99999999999999999999999", Some(None)),
            ("SIZEABLE 1000", None),
            ("", None),
        ] {
            assert_eq!(read(format!("250-hi\r\n250 {line}\r\n").as_bytes()).size, size, "{line}");
        }
        assert!(!read(b"250-hi\r\n250 SMTPUTF8\r\n").smtputf8); // RFC 6531 3.1
        assert_eq!(
            read(b"250-hi\r\n250-pipelining\r\n250 binarymime\r\n"),
            Extensions { pipelining: true, binary_mime: true, ..Extensions::default() }
        );
    }
}
