//! One SASL exchange. rsasl's step is pure CPU and runs inline; what it has to wait for is awaited between steps.
//!
//! Unknown user, wrong password and a wrong authorization identity take the same steps and the same work: who is not
//! there has a decoy ([`super::decoy`]), and the authorization identity is judged last. RFC 4954, 4616, 7677.

use std::mem;
use std::sync::Arc;

use super::sasl::{Refused, Session, Stepped};
use super::scheme::Hash;
use super::users::User;
use super::{Directory, Mechanism, SaslStep, Shared, check, scram};
use crate::account::{Account, MAX_NAME};

/// What stands for the log: why somebody was denied.
const UNKNOWN: &str = "unknown user";
const SHUT_OUT: &str = "the user's hash cannot be used";
const PASSWORD: &str = "wrong password";
const AUTHZID: &str = "authorization identity";
const CHANGED: &str = "the user's line has changed meanwhile";

/// One SASL exchange, from AUTH to 235 or 535.
pub struct Exchange {
    shared: Arc<Shared>,
    /// The users as of the beginning: one exchange sees one version of the file.
    directory: Arc<Directory>,
    state: State,
}

/// What the next response is.
enum State {
    /// PLAIN's one message.
    Plain,
    /// LOGIN's initial response, or nothing.
    Login,
    LoginName(Session),
    LoginPassword(Session),
    ScramFirst,
    ScramFinal {
        session: Session,
        name: String,
        authzid: Option<String>,
    },
    /// The client has seen our signature; RFC 4954 has no place for it in the 235, so an empty response follows.
    ScramSeen {
        name: String,
        account: Account,
    },
    /// Over, one way or the other.
    Over,
}

impl Exchange {
    pub(super) fn new(shared: Arc<Shared>, directory: Arc<Directory>, mechanism: Mechanism) -> Self {
        let state = match mechanism {
            Mechanism::Plain => State::Plain,
            Mechanism::Login => State::Login,
            Mechanism::ScramSha256 => State::ScramFirst,
        };
        Self { shared, directory, state }
    }

    /// Takes the initial response (`None`: there was none) or the response to the last challenge, decoded from base64.
    pub async fn step(&mut self, response: Option<&[u8]>) -> SaslStep {
        // Taken out: a step that is dropped or fails leaves nothing to go on with.
        let stepped = match (mem::replace(&mut self.state, State::Over), response) {
            (state @ (State::Plain | State::ScramFirst), None) => self.ask(state, Vec::new()),
            (State::Plain, Some(message)) => self.plain(message).await,
            (State::Login, response) => self.login(response),
            (State::LoginName(session), Some(name)) => self.login_name(session, name),
            (State::LoginPassword(session), Some(password)) => self.login_password(session, password).await,
            (State::ScramFirst, Some(message)) => self.scram_first(message),
            (State::ScramFinal { session, name, authzid }, Some(message)) => {
                self.scram_final(session, name, authzid.as_deref(), message)
            }
            (State::ScramSeen { name, account }, Some([]) | None) => Ok(self.success(&name, account)),
            (State::LoginName(_) | State::LoginPassword(_) | State::ScramFinal { .. }, None)
            | (State::ScramSeen { .. } | State::Over, _) => Err(Refused),
        };
        stepped.unwrap_or(SaslStep::Malformed)
    }

    fn ask(&mut self, state: State, challenge: Vec<u8>) -> Result<SaslStep, Refused> {
        self.state = state;
        Ok(SaslStep::Challenge(challenge))
    }

    /// RFC 4616 2: `[authzid] NUL authcid NUL passwd`.
    async fn plain(&self, message: &[u8]) -> Result<SaslStep, Refused> {
        let mut parts = message.split(|octet| *octet == 0);
        let (Some(authzid), Some(name), Some(password), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refused);
        };
        let authzid = std::str::from_utf8(authzid).map_err(|_| Refused)?;
        let name = std::str::from_utf8(name).map_err(|_| Refused)?;
        // What rsasl refuses now cannot be prepared (SASLprep), or is empty. RFC 4616 2 lets the verification fail
        // then; we verify what came all the same, since a password with an emoji may well have been hashed.
        let claim =
            Session::password(Mechanism::Plain)?.step(Some(message)).ok().and_then(|stepped| stepped.claim);
        let name = match &claim {
            Some(claim) if self.directory.find(name).is_none() => &claim.name,
            _ => name,
        };
        Ok(self.verify(name, Some(authzid), password).await)
    }

    /// The server speaks first; rsasl ignores what comes with its first step, and its prompts are not the customary ones.
    fn login(&mut self, response: Option<&[u8]>) -> Result<SaslStep, Refused> {
        let session = Session::password(Mechanism::Login)?.step(None)?.session;
        match response {
            None => self.ask(State::LoginName(session), b"Username:".to_vec()),
            Some(name) => self.login_name(session, name),
        }
    }

    fn login_name(&mut self, session: Session, name: &[u8]) -> Result<SaslStep, Refused> {
        let session = session.step(Some(name))?.session;
        self.ask(State::LoginPassword(session), b"Password:".to_vec())
    }

    async fn login_password(&self, session: Session, password: &[u8]) -> Result<SaslStep, Refused> {
        let claim = session.step(Some(password))?.claim.ok_or(Refused)?;
        Ok(self.verify(&claim.name, None, &claim.password).await)
    }

    fn scram_first(&mut self, message: &[u8]) -> Result<SaslStep, Refused> {
        let first = scram::client_first(message).ok_or(Refused)?;
        let users = &self.directory.users;
        let verifier = match self.directory.find(&first.name).and_then(User::hash) {
            Some(Hash::Scram(verifier)) => verifier.clone(),
            _ => self.shared.decoys.verifier(&first.name, users).ok_or(Refused)?,
        };
        let Stepped { session, output, .. } = Session::scram(first.escaped, verifier)?.step(Some(message))?;
        self.ask(State::ScramFinal { session, name: first.name, authzid: first.authzid }, output)
    }

    fn scram_final(
        &mut self,
        session: Session,
        name: String,
        authzid: Option<&str>,
        message: &[u8],
    ) -> Result<SaslStep, Refused> {
        if !scram::is_client_final(message) {
            return Err(Refused);
        }
        let Stepped { output, claim, .. } = session.step(Some(message))?;
        // Our signature proves that the password was right: it must not go out unless the client is let in.
        match self.judge(&name, authzid, claim.is_some()) {
            Ok(account) => self.ask(State::ScramSeen { name, account }, output),
            Err(why) => Ok(denied(&name, why)),
        }
    }

    /// Checks a password; one for a user who is not there against a decoy.
    async fn verify(&self, name: &str, authzid: Option<&str>, password: &[u8]) -> SaslStep {
        let users = &self.directory.users;
        let user = self.directory.find(name).filter(|user| user.shut_out().is_none());
        let secret = user.map(User::secret).or_else(|| self.shared.decoys.secret(name, users));
        let matches = match secret {
            Some(secret) => self.shared.checks.matches(secret, check::forms(password)).await,
            None => false,
        };
        match self.judge(name, authzid, matches) {
            Ok(account) => self.success(name, account),
            Err(why) => denied(name, why),
        }
    }

    /// Who it is, given whether the secret was right.
    fn judge(&self, name: &str, authzid: Option<&str>, proven: bool) -> Result<Account, &'static str> {
        let user = self.directory.find(name).ok_or(UNKNOWN)?;
        if user.shut_out().is_some() {
            return Err(SHUT_OUT);
        }
        if !proven {
            return Err(PASSWORD);
        }
        let is_self = |authzid: &str| self.directory.find(authzid).is_some_and(|other| other.is(user));
        match authzid {
            None | Some("") => Ok(user.account().clone()),
            Some(authzid) if authzid == name || is_self(authzid) => Ok(user.account().clone()),
            Some(_) => Err(AUTHZID),
        }
    }

    /// Lets in who is still in the file as they were when the exchange began: whose line changed meanwhile would
    /// otherwise escape the end of their sessions.
    fn success(&self, name: &str, account: Account) -> SaslStep {
        let now = self.shared.current.load();
        let unchanged = match (self.directory.find(name), now.find(name)) {
            (Some(then), Some(now)) => now.is(then),
            _ => false,
        };
        if unchanged { SaslStep::Success(account) } else { denied(name, CHANGED) }
    }
}

/// The name goes to the log and to counters: without control characters, and no longer than a user's could be.
fn denied(name: &str, why: &'static str) -> SaslStep {
    let mut end = name.len().min(MAX_NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let clean: String = name[..end].chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    SaslStep::Denied { name: Some(clean).filter(|name| !name.is_empty()), why }
}
