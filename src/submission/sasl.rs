//! The SASL exchange on the wire (RFC 4954 4): base64 lines between the client and [`auth`](crate::auth). The client's
//! responses are wiped from memory.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::client::{Client, Lost};
use crate::auth::{Authenticator, Binding, Guessed, SaslStep};
use crate::session::{AuthOutcome, LineError};

/// The mechanism for clients with a certificate (RFC 4422 A).
pub(super) const EXTERNAL: &str = "EXTERNAL";

/// How an exchange ended.
pub(super) struct Ended {
    /// The outcome for the machine.
    pub outcome: AuthOutcome,
    /// The name tried and why it was denied, for the log.
    pub denied: Option<Denied>,
    /// For the abuse desk: a correct password after many wrong ones.
    pub guessed: Option<Guessed>,
}

/// A failed login, for the log.
pub(super) enum Denied {
    /// The credentials were checked, and are wrong.
    Wrong {
        /// The name that was tried.
        name: Option<String>,
        /// Why it was denied.
        why: &'static str,
        /// Whether it counts as a guess.
        counted: bool,
    },
    /// The credentials were not checked.
    PutOff {
        /// The name that was tried.
        name: Option<String>,
        /// Too many passwords are being checked.
        crowded: bool,
    },
}

impl From<AuthOutcome> for Ended {
    fn from(outcome: AuthOutcome) -> Self {
        Self { outcome, denied: None, guessed: None }
    }
}

/// What is known of the client before it authenticates.
pub(super) struct Known<'a> {
    /// Its address.
    pub origin: IpAddr,
    /// The names in its certificate, if it has shown one.
    pub certificate: &'a [String],
    /// Ties an exchange to the TLS session, if channel binding is offered.
    pub binding: Option<Binding>,
}

/// Conducts the exchange that AUTH began.
///
/// # Errors
/// The client went away, or was silent until `deadline`.
pub(super) async fn exchange(
    client: &mut Client,
    auth: &Authenticator,
    mechanism: &str,
    initial: Option<&str>,
    known: Known<'_>,
    deadline: Instant,
) -> Result<Ended, Lost> {
    let begun = if mechanism.eq_ignore_ascii_case(EXTERNAL) {
        auth.external(known.certificate, known.origin)
    } else {
        auth.exchange(mechanism, known.origin, known.binding)
    };
    let Some(mut exchange) = begun else {
        return Ok(AuthOutcome::NotOffered.into());
    };
    let mut response = match initial {
        None => None,
        Some("=") => Some(Zeroizing::default()), // RFC 4954 4: an empty initial response
        Some(text) => match STANDARD.decode(text) {
            Ok(octets) => Some(Zeroizing::new(octets)),
            Err(_) => return Ok(AuthOutcome::BadBase64.into()),
        },
    };
    loop {
        match exchange.step(response.as_ref().map(|octets| octets.as_slice())).await {
            SaslStep::Challenge(octets) => {
                client.outbound.extend_from_slice(b"334 ");
                client.outbound.extend_from_slice(STANDARD.encode(octets).as_bytes());
                client.outbound.extend_from_slice(b"\r\n");
                client.flush().await?;
            }
            SaslStep::Success(account) => {
                let guessed = exchange.guessed();
                return Ok(Ended { guessed, ..AuthOutcome::Success(account).into() });
            }
            SaslStep::Denied { name, why, counted } => {
                let denied = Some(Denied::Wrong { name, why, counted });
                return Ok(Ended { denied, ..AuthOutcome::Denied.into() });
            }
            SaslStep::Later { name, crowded } => {
                let denied = Some(Denied::PutOff { name, crowded });
                return Ok(Ended { denied, ..AuthOutcome::Later.into() });
            }
            SaslStep::Malformed => return Ok(AuthOutcome::Malformed.into()),
        }
        let line = loop {
            match client.buffered_response() {
                Some(Ok(line)) => break line,
                Some(Err(LineError::AuthTooLong)) => return Ok(AuthOutcome::TooLong.into()),
                Some(Err(_)) => return Ok(AuthOutcome::BadBase64.into()),
                None => client.read_command(Some(deadline), None).await?,
            }
        };
        if *line == b"*" {
            return Ok(AuthOutcome::Cancelled.into());
        }
        match STANDARD.decode(line.as_slice()) {
            Ok(octets) => response = Some(Zeroizing::new(octets)),
            Err(_) => return Ok(AuthOutcome::BadBase64.into()),
        }
    }
}
