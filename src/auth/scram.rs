//! The guard in front of rsasl's SCRAM: only messages of the shape that rsasl 2.3.1 takes for granted pass.
//!
//! rsasl slices messages without checking lengths, and panics on a crafted one before any password is known. It also
//! leaves names escaped, and accepts a -PLUS exchange without channel binding. RFC 5802 5.1, 6 and 7. Pure; the
//! cryptography stays with rsasl.

use super::Binding;

/// The only kind of channel binding supported (RFC 9266).
pub(super) const TLS_EXPORTER: &[u8] = b"tls-exporter";

/// Which of the two mechanisms is used, and whether the other was offered beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variant {
    /// Without channel binding, which was not available.
    Alone,
    /// Without channel binding, although it was offered.
    Bare,
    /// With channel binding (-PLUS).
    Plus(Binding),
}

/// Why an exchange ends with its well-formed first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// `y`: the client has not seen the offer of channel binding, so somebody has removed it.
    Downgrade,
    /// Channel binding of another kind is requested.
    Kind,
}

/// The identities in a client-first-message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientFirst<'a> {
    /// What is wrong with its channel binding.
    pub(super) flaw: Option<Flaw>,
    /// The name as it is escaped in the message.
    pub(super) escaped: &'a str,
    /// The authentication identity.
    pub(super) name: String,
    /// The authorization identity, if there is one.
    pub(super) authzid: Option<String>,
}

/// Parses a client-first-message; `None` if it is not one.
pub(super) fn client_first(message: &[u8], variant: Variant) -> Option<ClientFirst<'_>> {
    let mut parts = message.split(|octet| *octet == b',');
    // RFC 5802 6: `p=` requests channel binding, which a -PLUS mechanism requires and no other allows; `y`: the client
    // supports it and believes that we do not.
    let flaw = match (variant, parts.next()?) {
        (Variant::Alone, b"n" | b"y") | (Variant::Bare, b"n") => None,
        (Variant::Bare, b"y") => Some(Flaw::Downgrade),
        (Variant::Plus(_), [b'p', b'=', kind @ ..]) if !kind.is_empty() => {
            (kind != TLS_EXPORTER).then_some(Flaw::Kind)
        }
        _ => return None,
    };
    let authzid = match parts.next()? {
        // gsasl writes `a=` if given an empty authorization identity; RFC 5802 7 does not allow that.
        [] | b"a=" => None,
        part => Some(unescape(value(b'a', part)?)?),
    };
    // `m=` here would announce a mandatory extension; none is supported.
    let escaped = value(b'n', parts.next()?)?;
    value(b'r', parts.next()?)?;
    let extensions_have_names = parts.all(|part| part.get(1) == Some(&b'='));
    extensions_have_names.then_some(())?;
    Some(ClientFirst { flaw, escaped, name: unescape(escaped)?, authzid })
}

/// Whether `message` is a client-final-message that rsasl can take.
pub(super) fn is_client_final(message: &[u8]) -> bool {
    let parts: Vec<_> = message.split(|octet| *octet == b',').collect();
    let is_proof = |part: &[u8]| part.starts_with(b"p=");
    let [first @ .., last] = parts.as_slice() else { return false };
    first.len() >= 2
        && is_proof(last)
        && first.iter().all(|part| part.get(1) == Some(&b'=') && !is_proof(part))
}

/// The value after `NAME=`: UTF-8, not empty.
fn value(name: u8, part: &[u8]) -> Option<&str> {
    match part {
        [first, b'=', value @ ..] if *first == name && !value.is_empty() => std::str::from_utf8(value).ok(),
        _ => None,
    }
}

/// RFC 5802 5.1: `,` is written `=2C`, `=` is written `=3D`; any other use of `=` fails the authentication.
fn unescape(text: &str) -> Option<String> {
    let mut pieces = text.split('=');
    let mut name = pieces.next()?.to_owned();
    for piece in pieces {
        let (octet, rest) = match (piece.strip_prefix("2C"), piece.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return None,
        };
        name.push(octet);
        name.push_str(rest);
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn client_first_messages() {
        for (message, expected) in [
            ("n,,n=alice,r=abc", Some(("alice", None))),
            ("y,,n=alice,r=abc", Some(("alice", None))),
            ("n,a=,n=alice,r=abc", Some(("alice", None))),
            ("n,a=bob,n=alice,r=abc", Some(("alice", Some("bob")))),
            ("n,,n=a=2Cb=3Dc=3D,r=abc", Some(("a,b=c=", None))),
            ("n,a=x=2Cy,n=alice,r=abc", Some(("alice", Some("x,y")))),
            ("n,,n=alice,r=abc,x=y,z=", Some(("alice", None))),
            // Messages that make rsasl panic.
            ("n,,", None),
            ("n,,n", None),
            ("n,a,n=alice,r=abc", None),
            ("n,,n=alice,r", None),
            ("n,,n=alice,", None),
            ("n,,n=alice,r=abc,", None),
            ("n,,n=,r=abc", None),
            ("n,,n=alice,r=", None),
            // Channel binding, a mandatory extension, another flag.
            ("p=tls-exporter,,n=alice,r=abc", None),
            ("n,,m=x,n=alice,r=abc", None),
            ("x,,n=alice,r=abc", None),
            (",,n=alice,r=abc", None),
            // RFC 5802 5.1: lower-case digits, a truncated escape, any other octet.
            ("n,,n=a=2cb,r=abc", None),
            ("n,,n=a=,r=abc", None),
            ("n,,n=a=41,r=abc", None),
            ("", None),
            ("n", None),
        ] {
            let read = client_first(message.as_bytes(), Variant::Alone);
            let read = read.as_ref().map(|first| (first.name.as_str(), first.authzid.as_deref()));
            assert_eq!(read, expected, "{message}");
        }
        assert_eq!(client_first(b"n,,n=\xff,r=abc", Variant::Alone), None);
    }

    #[test]
    fn flags_of_channel_binding() {
        let plus = Variant::Plus([7; 32]);
        for (flag, [alone, bare, with]) in [
            ("n", [Some(None), Some(None), None]),
            ("y", [Some(None), Some(Some(Flaw::Downgrade)), None]),
            ("p=tls-exporter", [None, None, Some(None)]),
            ("p=tls-unique", [None, None, Some(Some(Flaw::Kind))]),
            ("p=TLS-exporter", [None, None, Some(Some(Flaw::Kind))]),
            ("p=", [None; 3]),
            ("p", [None; 3]),
            ("", [None; 3]),
        ] {
            let message = format!("{flag},,n=alice,r=abc");
            let read = |variant| client_first(message.as_bytes(), variant).map(|first| first.flaw);
            assert_eq!(
                [read(Variant::Alone), read(Variant::Bare), read(plus)],
                [alone, bare, with],
                "{flag}"
            );
        }
    }

    #[test]
    fn client_final_messages() {
        for (message, expected) in [
            ("c=biws,r=abc,p=AAAA", true),
            ("c=biws,r=abc,x=y,p=", true),
            // Messages that make rsasl panic.
            ("c", false),
            ("c=biws,r", false),
            ("c=biws,r=abc,p=AAAA,", false),
            ("c=biws,r=abc,,p=AAAA", false),
            ("c=biws,r=abc,x,p=AAAA", false),
            ("c=biws,r=abc,p=AAAA,p=AAAA", false),
            ("c=biws,p=AAAA", false),
            ("p=AAAA", false),
            ("", false),
        ] {
            assert_eq!(is_client_final(message.as_bytes()), expected, "{message}");
        }
    }

    proptest! {
        #[test]
        fn unescape_undoes_escape(name in "\\PC{0,20}") {
            let escaped = name.replace('=', "=3D").replace(',', "=2C");
            prop_assert_eq!(unescape(&escaped), Some(name));
        }
    }
}
