//! rsasl at arm's length: one session, one step at a time; a panic is an error like any other.
//!
//! Nothing here waits. The identity that a client claims is returned as a [`Claim`]. For the password mechanisms it is
//! still to be verified; for SCRAM the proof was right, and so was the channel binding of -PLUS. RFC 4422, 4616, 5802,
//! 9266, draft-murchison-sasl-login.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rsasl::callback::{Context, Request, SessionCallback, SessionData};
use rsasl::mechanisms::scram::SCRAM_SHA256_PLUS;
use rsasl::mechanisms::scram::properties::ScramStoredPassword;
use rsasl::prelude::{
    ChannelBindingCallback, Mechname, Registry, SASLConfig, SASLServer, SessionError, Validation,
};
use rsasl::property::{AuthId, Password};
use rsasl::validate::{Validate, ValidationError};
use zeroize::Zeroizing;

use super::scram::TLS_EXPORTER;
use super::verifier::Verifier;
use super::{Binding, Mechanism, SCRAM_PLUS};

/// Not among rsasl's default mechanisms.
static PLUS: [rsasl::prelude::Mechanism; 1] = [SCRAM_SHA256_PLUS];

/// The identity that a client claims. With SCRAM, its existence means that the proof was right.
pub(super) struct Claim {
    /// The authentication identity; still escaped with SCRAM.
    pub(super) name: String,
    /// Empty with SCRAM. PLAIN has prepared it (SASLprep) if it is UTF-8.
    pub(super) password: Zeroizing<Vec<u8>>,
}

/// The type that ties rsasl's session to [`Claim`].
struct Claims;

impl Validation for Claims {
    type Value = Claim;
}

/// Why there is no outcome. The session is gone: one that failed must not be stepped again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// Not a message of the mechanism.
    Message,
    /// rsasl panicked: the guard in front of it has a gap.
    Panic,
}

/// The result of a step.
pub(super) struct Stepped {
    /// The session to be continued.
    pub(super) session: Session,
    /// The message for the client.
    pub(super) output: Vec<u8>,
    /// Present once the exchange has ended, and only if it ended well: rsasl also calls a SCRAM exchange with a wrong
    /// proof finished.
    pub(super) claim: Option<Claim>,
}

/// An exchange of rsasl.
pub(super) struct Session(Box<rsasl::prelude::Session<Claims, Bound>>);

/// Answers rsasl's request for the channel binding; empty for mechanisms without one, which do not ask.
struct Bound(Option<Binding>);

impl ChannelBindingCallback for Bound {
    fn get_cb_data(&self, kind: &str) -> Option<&[u8]> {
        self.0.as_ref().filter(|_| kind.as_bytes() == TLS_EXPORTER).map(Binding::as_slice)
    }
}

/// Answers rsasl's requests.
struct Answers {
    /// For SCRAM: the name as the message spells it, and its verifier.
    scram: Option<(String, Verifier)>,
}

impl Session {
    /// Begins PLAIN or LOGIN.
    pub(super) fn password(mechanism: Mechanism) -> Result<Self, Refused> {
        Self::start(mechanism.name(), None, None)
    }

    /// Begins SCRAM-SHA-256, or with a channel binding SCRAM-SHA-256-PLUS, for exactly this name, as the
    /// client-first-message spells it.
    pub(super) fn scram(
        escaped: &str,
        verifier: Verifier,
        binding: Option<Binding>,
    ) -> Result<Self, Refused> {
        let name = if binding.is_some() { SCRAM_PLUS } else { Mechanism::ScramSha256.name() };
        Self::start(name, Some((escaped.to_owned(), verifier)), binding)
    }

    fn start(
        name: &str,
        scram: Option<(String, Verifier)>,
        binding: Option<Binding>,
    ) -> Result<Self, Refused> {
        let builder = SASLConfig::builder();
        let builder = match &binding {
            None => builder.with_defaults(),
            Some(_) => builder.with_registry(Registry::with_mechanisms(&PLUS)),
        };
        let config = builder.with_callback(Answers { scram }).map_err(|_| Refused::Message)?;
        let name = Mechname::parse(name.as_bytes()).map_err(|_| Refused::Message)?;
        let server = SASLServer::<Claims, _>::with_cb(config, Bound(binding));
        Ok(Self(Box::new(server.start_suggested(name).map_err(|_| Refused::Message)?)))
    }

    /// Performs one step. Consumes the session and returns it, so that one that failed cannot be used again.
    pub(super) fn step(mut self, input: Option<&[u8]>) -> Result<Stepped, Refused> {
        let mut output = Vec::new();
        let stepped = catch_unwind(AssertUnwindSafe(|| self.0.step(input, &mut output)));
        match stepped {
            Ok(Ok(_)) => {
                let claim = self.0.validation();
                Ok(Stepped { session: self, output, claim })
            }
            Ok(Err(_)) => Err(Refused::Message),
            Err(_) => Err(Refused::Panic),
        }
    }
}

impl SessionCallback for Answers {
    fn callback(
        &self,
        _session: &SessionData,
        context: &Context<'_>,
        request: &mut Request<'_>,
    ) -> Result<(), SessionError> {
        if let Some((escaped, verifier)) = &self.scram
            && context.get_ref::<AuthId>() == Some(escaped)
        {
            request.satisfy::<ScramStoredPassword<'_>>(&ScramStoredPassword::new(
                verifier.iterations,
                &verifier.salt,
                &verifier.stored_key,
                &verifier.server_key,
            ))?;
        }
        Ok(())
    }

    fn validate(
        &self,
        _session: &SessionData,
        context: &Context<'_>,
        validate: &mut Validate<'_>,
    ) -> Result<(), ValidationError> {
        let name = context.get_ref::<AuthId>().ok_or(ValidationError::MissingRequiredProperty)?;
        let password = context.get_ref::<Password>().unwrap_or_default();
        validate.with::<Claims, _>(|| {
            Ok(Claim { name: name.to_owned(), password: Zeroizing::new(password.to_vec()) })
        })?;
        Ok(())
    }
}

/// Prepares a name or password with SASLprep (RFC 4013); `None` if that is impossible (a control character, a character
/// that Unicode 3.2 does not know) or leaves nothing. rsasl does not export its SASLprep, so this goes through its
/// PLAIN.
pub(super) fn prepared(text: &str) -> Option<Zeroizing<String>> {
    // RFC 4013 changes and prohibits nothing in printable ASCII.
    if !text.is_empty() && text.bytes().all(|octet| matches!(octet, b' '..=b'~')) {
        return Some(Zeroizing::new(text.to_owned()));
    }
    let message = Zeroizing::new(format!("\0-\0{text}"));
    let claim = Session::password(Mechanism::Plain).ok()?.step(Some(message.as_bytes())).ok()?.claim?;
    let text = std::str::from_utf8(&claim.password).ok()?;
    Some(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::super::scram::{Variant, client_first, is_client_final};
    use super::*;

    #[test]
    fn saslprep() {
        // The examples of RFC 4013 3, then an emoji and the empty string, which PLAIN refuses.
        for (text, expected) in [
            ("I\u{ad}X", Some("IX")),
            ("user", Some("user")),
            ("USER", Some("USER")),
            ("\u{aa}", Some("a")),
            ("\u{2168}", Some("IX")),
            ("\u{7}", None),
            ("\u{627}1", None),
            ("a\0b", None),
            ("\u{ad}", None),
            ("\u{1f511}", None),
            ("", None),
            ("Gro\u{308}ße", Some("Größe")),
            ("a\u{a0}b", Some("a b")),
        ] {
            assert_eq!(prepared(text).as_ref().map(|text| text.as_str()), expected, "{text:?}");
        }
    }

    #[test]
    fn a_panic_inside_rsasl_is_an_error() {
        // Without the guard. If a newer rsasl does not panic here, the guard is superfluous.
        let verifier = Verifier::new(b"x").unwrap();
        for message in ["n,,", "n,,n", "n,a,n=alice,r=abc", "n,,n=alice,r"] {
            let session = Session::scram("alice", verifier.clone(), None).unwrap();
            assert_eq!(session.step(Some(message.as_bytes())).err(), Some(Refused::Panic), "{message}");
        }
    }

    /// The message with some octets replaced, inserted, removed, doubled or cut off.
    fn mutated(message: &[u8], mutations: &[(u16, u8, u8)]) -> Vec<u8> {
        let mut message = message.to_vec();
        for (at, kind, octet) in mutations {
            let at = usize::from(*at) % (message.len() + 1);
            match kind {
                0 if at < message.len() => message[at] = *octet,
                1 if at < message.len() => drop(message.remove(at)),
                2 => message.insert(at, *octet),
                3 => message.truncate(at),
                // The octets that the grammar uses.
                4 => message.insert(at, b",=npram"[usize::from(*octet) % 7]),
                _ => message.extend_from_within(at..),
            }
        }
        message
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        /// Messages that pass the guard never make rsasl panic.
        #[test]
        fn the_guard_holds(
            last in any::<bool>(),
            plus in any::<bool>(),
            mutations in prop::collection::vec((any::<u16>(), 0..6_u8, any::<u8>()), 0..6),
        ) {
            let verifier = Verifier::parse("1,AAAA,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").unwrap();
            let (variant, flag) = if plus { (Variant::Plus([7; 32]), "p=tls-exporter") } else { (Variant::Alone, "n") };
            let first = format!("{flag},{}", if last { ",n=alice,r=abc" } else { "a=bob,n=al=2Cice,r=abc,x=y" });
            let first = if last { first.into_bytes() } else { mutated(first.as_bytes(), &mutations) };
            if let Some(read) = client_first(&first, variant) {
                match Session::scram(read.escaped, verifier, plus.then_some([7; 32])).unwrap().step(Some(&first)) {
                    Ok(stepped) if last => {
                        let nonce = String::from_utf8(stepped.output).unwrap();
                        let nonce = nonce.split(',').next().unwrap();
                        let proof = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
                        let bound = STANDARD.encode([format!("{flag},,").as_bytes(), if plus { &[7; 32] } else { &[] }].concat());
                        let message = mutated(format!("c={bound},{nonce},p={proof}").as_bytes(), &mutations);
                        if is_client_final(&message) {
                            let stepped = stepped.session.step(Some(&message));
                            prop_assert!(!matches!(stepped, Err(Refused::Panic)));
                            prop_assert!(!stepped.is_ok_and(|stepped| stepped.claim.is_some()));
                        }
                    }
                    stepped => prop_assert!(!matches!(stepped, Err(Refused::Panic))),
                }
            }
        }
    }
}
