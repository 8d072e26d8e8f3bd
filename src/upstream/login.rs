//! Authentication to the upstream: SASL PLAIN or LOGIN (RFC 4954, 4616), never where others can listen.
//!
//! The password file is read at the start, and again when the upstream refuses the password.

use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::Fault;
use super::connection::Connection;
use crate::net::password::{self, Credentials, PasswordError};
use crate::smtp::Reply;

/// RFC 4954 6: authentication succeeded.
const SUCCEEDED: u16 = 235;
/// RFC 4954 4: the server waits for a response.
const CHALLENGE: u16 = 334;
/// RFC 4954 6: authentication credentials invalid.
const INVALID: u16 = 535;
/// The longest command line, CRLF included (RFC 5321 4.5.3.1.4); a longer initial response is sent on its own (RFC 4954
/// 4).
const MAX_LINE: usize = 512;

pub(super) struct Login {
    credentials: Credentials,
    password: ArcSwap<Zeroizing<String>>,
}

impl Login {
    pub(super) fn open(credentials: Credentials) -> Result<Self, PasswordError> {
        let password = ArcSwap::from_pointee(password::read(&credentials.password_file)?);
        Ok(Self { credentials, password })
    }

    /// Authenticates, waiting `limit` at most for each reply.
    pub(super) async fn authenticate(
        &self,
        connection: &mut Connection,
        limit: Duration,
    ) -> Result<(), Fault> {
        if !connection.stream.is_private() {
            return Err(Fault::Unavailable("the password is not sent where others can listen".to_owned()));
        }
        let offers = |mechanism: &str| connection.extensions.auth.iter().any(|offered| offered == mechanism);
        // LOGIN is obsolete, but some servers know nothing else.
        let plain = offers("PLAIN");
        if !plain && !offers("LOGIN") {
            let why = "the upstream offers neither AUTH PLAIN nor AUTH LOGIN";
            return Err(Fault::Unavailable(why.to_owned()));
        }
        let mut reply = self.attempt(connection, plain, limit).await?;
        if reply.code == INVALID && self.has_changed() {
            reply = self.attempt(connection, plain, limit).await?;
        }
        match reply.code {
            SUCCEEDED => Ok(()),
            _ => Err(Fault::Unavailable(format!("the upstream refused our AUTH: {reply}"))),
        }
    }

    async fn attempt(
        &self,
        connection: &mut Connection,
        plain: bool,
        limit: Duration,
    ) -> Result<Reply, Fault> {
        let (username, password) = (self.credentials.username.as_str(), self.password.load_full());
        let (command, mut responses) = if plain {
            let message = Zeroizing::new(format!("\0{username}\0{}", password.as_str()));
            ("AUTH PLAIN", vec![encoded(&message)])
        } else {
            ("AUTH LOGIN", vec![encoded(&password), encoded(username)])
        };
        let mut line = Zeroizing::new(command.to_owned());
        if let Some(initial) = responses.last()
            && plain
            && command.len() + " \r\n".len() + initial.len() <= MAX_LINE
        {
            line.push(' ');
            line.push_str(initial);
            responses.clear();
        }
        loop {
            connection.check_in_step().map_err(Fault::from)?;
            connection.queue(line.as_bytes());
            connection.queue(b"\r\n");
            let reply = connection.reply(limit).await?;
            if reply.code != CHALLENGE {
                return Ok(reply);
            }
            match responses.pop() {
                Some(response) => line = response,
                // A challenge that belongs to neither mechanism.
                None => return Ok(reply),
            }
        }
    }

    /// Reads the password file again; returns whether the password is a different one.
    fn has_changed(&self) -> bool {
        match password::read(&self.credentials.password_file) {
            Ok(password) if password != **self.password.load() => {
                self.password.store(std::sync::Arc::new(password));
                true
            }
            _ => false,
        }
    }
}

fn encoded(text: &str) -> Zeroizing<String> {
    Zeroizing::new(STANDARD.encode(text))
}
