//! One SASL exchange. rsasl's step is pure CPU and runs inline; waiting happens between steps.
//!
//! An unknown user, a wrong password and a wrong authorization identity take the same steps and the same work: an
//! unknown user gets a decoy ([`super::decoy`]), and the authorization identity is judged last. A channel binding that
//! does not match counts as a wrong password. RFC 4954, 4616, 7677, 9266.

use std::mem;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::decoy::folded;
use super::guesses::{Attempt, Guessed, Leave};
use super::recent::Digests;
use super::sasl::{Refused, Session, Stepped};
use super::scheme::{Hash, Secret};
use super::scram::{Flaw, Variant};
use super::users::User;
use super::{Directory, Mechanism, SaslStep, Shared, check, scram};
use crate::account::{Account, MAX_NAME};
use crate::visible::masked;

/// Why a login was denied, as the log says it.
const UNKNOWN: &str = "unknown user";
const SHUT_OUT: &str = "the user's hash cannot be used";
const PASSWORD: &str = "wrong password";
const AUTHZID: &str = "authorization identity";
const CHANGED: &str = "the user's line has changed meanwhile";
const BINDING: &str = "channel binding of a kind that is not offered";
const DOWNGRADE: &str = "the offer of SCRAM-SHA-256-PLUS was kept from the client";

/// One SASL exchange, from AUTH to 235 or 535.
pub struct Exchange {
    shared: Arc<Shared>,
    /// The users as of the beginning: an exchange sees one version of the file.
    directory: Arc<Directory>,
    state: State,
    origin: IpAddr,
    guessed: Option<Guessed>,
}

/// What the next response has to be.
enum State {
    /// The single message of PLAIN.
    Plain,
    /// The initial response of LOGIN, or none.
    Login,
    LoginName(Session),
    LoginPassword(Session),
    ScramFirst(Variant),
    ScramFinal {
        session: Session,
        name: String,
        authzid: Option<String>,
    },
    /// The client has received our signature. RFC 4954 has no room for it in the 235, so an empty response follows.
    ScramSeen {
        name: String,
        account: Account,
    },
    /// The single message of EXTERNAL; the certificate has named the client.
    External {
        name: String,
    },
    /// The exchange has ended.
    Over,
}

impl Exchange {
    pub(super) fn new(
        shared: Arc<Shared>,
        directory: Arc<Directory>,
        (mechanism, variant): (Mechanism, Variant),
        origin: IpAddr,
    ) -> Self {
        let state = match mechanism {
            Mechanism::Plain => State::Plain,
            Mechanism::Login => State::Login,
            Mechanism::ScramSha256 => State::ScramFirst(variant),
        };
        Self { shared, directory, state, origin, guessed: None }
    }

    pub(super) fn external(
        shared: Arc<Shared>,
        directory: Arc<Directory>,
        name: String,
        origin: IpAddr,
    ) -> Self {
        Self { shared, directory, state: State::External { name }, origin, guessed: None }
    }

    /// After success: the guesses that preceded it, if there were many.
    pub fn guessed(&self) -> Option<Guessed> {
        self.guessed
    }

    /// Takes the initial response (`None`: there was none) or the response to the last challenge, decoded from base64.
    pub async fn step(&mut self, response: Option<&[u8]>) -> SaslStep {
        // Taken out, so that a step that fails or is dropped leaves nothing to continue.
        let stepped = match (mem::replace(&mut self.state, State::Over), response) {
            (state @ (State::Plain | State::ScramFirst(_) | State::External { .. }), None) => {
                self.ask(state, Vec::new())
            }
            (State::Plain, Some(message)) => self.plain(message).await,
            (State::Login, response) => self.login(response),
            (State::LoginName(session), Some(name)) => self.login_name(session, name),
            (State::LoginPassword(session), Some(password)) => self.login_password(session, password).await,
            (State::ScramFirst(variant), Some(message)) => self.scram_first(message, variant),
            (State::ScramFinal { session, name, authzid }, Some(message)) => {
                self.scram_final(session, name, authzid.as_deref(), message).await
            }
            (State::External { name }, Some(authzid)) => self.certified(&name, authzid),
            (State::ScramSeen { name, account }, Some([]) | None) => Ok(self.success(&name, account)),
            (State::LoginName(_) | State::LoginPassword(_) | State::ScramFinal { .. }, None)
            | (State::ScramSeen { .. } | State::Over, _) => Err(Refused::Message),
        };
        stepped.unwrap_or(SaslStep::Malformed)
    }

    fn ask(&mut self, state: State, challenge: Vec<u8>) -> Result<SaslStep, Refused> {
        self.state = state;
        Ok(SaslStep::Challenge(challenge))
    }

    /// Handles RFC 4616 2: `[authzid] NUL authcid NUL passwd`.
    async fn plain(&mut self, message: &[u8]) -> Result<SaslStep, Refused> {
        let mut parts = message.split(|octet| *octet == 0);
        let (Some(authzid), Some(name), Some(password), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refused::Message);
        };
        let authzid = std::str::from_utf8(authzid).map_err(|_| Refused::Message)?;
        let name = std::str::from_utf8(name).map_err(|_| Refused::Message)?;
        // A password that rsasl refuses here is empty or cannot be prepared (SASLprep). RFC 4616 2 allows that to fail;
        // we verify it as it came, since a password with an emoji may well have been hashed.
        let claim =
            Session::password(Mechanism::Plain)?.step(Some(message)).ok().and_then(|stepped| stepped.claim);
        let name = match &claim {
            Some(claim) if self.directory.find(name).is_none() => claim.name.as_str(),
            _ => name,
        };
        Ok(self.verify(name, Some(authzid), password).await)
    }

    /// Handles RFC 4422 A.1: the authorization identity, or nothing.
    fn certified(&self, name: &str, authzid: &[u8]) -> Result<SaslStep, Refused> {
        let authzid = std::str::from_utf8(authzid).map_err(|_| Refused::Message)?;
        match self.judge(name, Some(authzid), true) {
            Ok(account) => Ok(self.success(name, account)),
            Err(why) => Ok(denied(name, why, false)),
        }
    }

    /// The server speaks first. rsasl ignores the response to its first step, and its prompts are not the customary
    /// ones.
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

    async fn login_password(&mut self, session: Session, password: &[u8]) -> Result<SaslStep, Refused> {
        let claim = session.step(Some(password))?.claim.ok_or(Refused::Message)?;
        Ok(self.verify(&claim.name, None, &claim.password).await)
    }

    fn scram_first(&mut self, message: &[u8], variant: Variant) -> Result<SaslStep, Refused> {
        let first = scram::client_first(message, variant).ok_or(Refused::Message)?;
        if let Some(flaw) = first.flaw {
            // No password was tried.
            let why = match flaw {
                Flaw::Downgrade => DOWNGRADE,
                Flaw::Kind => BINDING,
            };
            return Ok(denied(&first.name, why, false));
        }
        let users = &self.directory.users;
        // Made for everybody: the microseconds that it takes would reveal who exists.
        let decoy = self.shared.decoys.verifier(&first.name, users).ok_or(Refused::Message)?;
        let verifier = match self.directory.find(&first.name).and_then(User::hash) {
            Some(Hash::Scram(verifier)) => verifier.clone(),
            _ => decoy,
        };
        let binding = match variant {
            Variant::Plus(binding) => Some(binding),
            Variant::Alone | Variant::Bare => None,
        };
        let session = Session::scram(first.escaped, verifier, binding)?;
        let Stepped { session, output, .. } = session.step(Some(message))?;
        self.ask(State::ScramFinal { session, name: first.name, authzid: first.authzid }, output)
    }

    async fn scram_final(
        &mut self,
        session: Session,
        name: String,
        authzid: Option<&str>,
        message: &[u8],
    ) -> Result<SaslStep, Refused> {
        if !scram::is_client_final(message) {
            return Err(Refused::Message);
        }
        let attempt = self.attempt(&name, message);
        if !self.may_try(&attempt).await {
            return Ok(later(&name));
        }
        let Stepped { output, claim, .. } = session.step(Some(message))?;
        // Our signature proves that the password was right, so it must not be sent unless the client is let in.
        match self.judge(&name, authzid, claim.is_some()) {
            Ok(_) if !self.came_through(&attempt) => Ok(later(&name)),
            Ok(account) => self.ask(State::ScramSeen { name, account }, output),
            Err(why) => Ok(denied(&name, why, self.missed(&attempt))),
        }
    }

    /// Checks a password; for an unknown user against a decoy.
    async fn verify(&mut self, name: &str, authzid: Option<&str>, password: &[u8]) -> SaslStep {
        let attempt = self.attempt(name, password);
        if !self.may_try(&attempt).await {
            return later(name);
        }
        let users = &self.directory.users;
        let user = self.directory.find(name).filter(|user| user.shut_out().is_none());
        let decoy = self.shared.decoys.secret(name, users);
        let forms = check::forms(password);
        let known_as = user.map_or(name, User::name);
        let digests = self.shared.recent.digests(known_as, &forms);
        // Someone who is not let in even with the right password waits for the full check: a quick 535 would reveal
        // that it is right.
        let welcome = user.is_some() && self.judge(name, authzid, true).is_ok() && self.is_unchanged(name);
        let matches = match user.map(User::secret).or(decoy) {
            Some(secret)
                if welcome && self.shared.recent.holds(known_as, &secret, &digests, Instant::now()) =>
            {
                Ok(true)
            }
            Some(secret) => self.check(known_as, secret, forms, digests, welcome).await,
            None => Ok(false),
        };
        let Ok(matches) = matches else { return SaslStep::Later { name: shown(name), crowded: true } };
        match self.judge(name, authzid, matches) {
            Ok(_) if !self.came_through(&attempt) => later(name),
            Ok(account) => self.success(name, account),
            Err(why) => denied(name, why, self.missed(&attempt)),
        }
    }

    /// Does the slow check; a success is remembered for those who are `welcome`.
    async fn check(
        &self,
        known_as: &str,
        secret: Arc<Secret>,
        forms: check::Forms,
        mut digests: Digests,
        welcome: bool,
    ) -> Result<bool, check::Crowded> {
        let Some(form) = self.shared.checks.matching(Arc::clone(&secret), forms).await? else {
            return Ok(false);
        };
        if welcome && form < digests.len() {
            let digest = digests.swap_remove(form);
            self.shared.recent.remember(known_as, secret, digest, Instant::now());
        }
        Ok(true)
    }

    fn attempt(&self, name: &str, secret: &[u8]) -> Attempt {
        self.shared.guesses.attempt(&folded(name), secret, self.origin)
    }

    /// Whether a password may be tried; waits while guessing is slowed down.
    async fn may_try(&self, attempt: &Attempt) -> bool {
        match self.shared.guesses.leave(attempt, Instant::now()) {
            Leave::Now => true,
            Leave::After(wait) => {
                tokio::time::sleep(wait).await;
                true
            }
            Leave::Later => false,
        }
    }

    /// Counts a success. Returns `false` if so many guesses were wrong meanwhile that the success must not be revealed:
    /// trying a hundred at once reveals no more than trying them one by one.
    fn came_through(&mut self, attempt: &Attempt) -> bool {
        let now = Instant::now();
        let told = self.shared.guesses.leave(attempt, now) != Leave::Later;
        if told {
            self.guessed = self.shared.guesses.hit(attempt, now);
        }
        told
    }

    fn missed(&self, attempt: &Attempt) -> bool {
        self.shared.guesses.missed(attempt, Instant::now())
    }

    /// Decides who the client is, given whether the secret was right.
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

    /// Lets the user in if the line in the file is still the one from the beginning of the exchange; otherwise this
    /// session would escape when that user's sessions are ended.
    fn success(&self, name: &str, account: Account) -> SaslStep {
        if self.is_unchanged(name) { SaslStep::Success(account) } else { denied(name, CHANGED, false) }
    }

    fn is_unchanged(&self, name: &str) -> bool {
        self.directory.has_same(name, &self.shared.current.load())
    }
}

/// The name goes to the log and to counters, so what is unsafe to show is masked, and it is cut to the length of a
/// user's name.
fn denied(name: &str, why: &'static str, counted: bool) -> SaslStep {
    SaslStep::Denied { name: shown(name), why, counted }
}

fn later(name: &str) -> SaslStep {
    SaslStep::Later { name: shown(name), crowded: false }
}

fn shown(name: &str) -> Option<String> {
    let mut end = name.len().min(MAX_NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let clean: String = name[..end].chars().map(masked).collect();
    Some(clean).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use std::future::{Future as _, poll_fn};
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Poll;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use sha2::{Digest as _, Sha256};

    use super::super::verifier::{Verifier, mac};
    use super::super::{Authenticator, GuessLimits, SCRAM_PLUS, UsersEvent};
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const ALL: [Mechanism; 3] = [Mechanism::Plain, Mechanism::Login, Mechanism::ScramSha256];
    /// doveadm pw -s SCRAM-SHA-256 -p 'correct horse'
    const SCRAM: &str = "{SCRAM-SHA-256}4096,BTObTyn3847hjgwpF6xmpg==,hICkXYOhkZAjOWibsPoUGumQEKoIPoFdrCXC53tcLaw=,wm74XKUVBf/JUfbA0NoS+gD5UcZLm6fele6BCJrEq08=";
    /// doveadm pw -s SHA256-CRYPT -r 1000 -p 'correct horse'
    const CRYPT: &str = "$5$rounds=1000$8g3bLFkL5Aut2SOi$GLcj/dD3LUBe6HsKOb/.Md/0lurit91j96ihy0vhx/2";

    fn authenticator(content: &str) -> Authenticator {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        Authenticator::open(Some(file.path()), &ALL, [7; 32]).unwrap()
    }

    fn scram_users() -> Authenticator {
        authenticator(&format!("Anna@example.org:{SCRAM}\nbob:{SCRAM}\na,b=c:{SCRAM}\nout:{{SSHA}}x\n"))
    }

    /// Plays an exchange and returns its steps as short texts; the response `-` stands for no initial response.
    async fn played(authenticator: &Authenticator, mechanism: &str, responses: &[&[u8]]) -> Vec<String> {
        let mut exchange = authenticator.exchange(mechanism, HERE, None).unwrap();
        let mut steps = Vec::new();
        for response in responses {
            steps.push(text(&exchange.step(Some(*response).filter(|response| *response != b"-")).await));
        }
        steps
    }

    fn text(step: &SaslStep) -> String {
        match step {
            SaslStep::Challenge(octets) => format!("334 {}", String::from_utf8_lossy(octets)),
            SaslStep::Success(account) => format!("235 {account}"),
            SaslStep::Denied { name, why, .. } => format!("535 {}: {why}", name.as_deref().unwrap_or("-")),
            SaslStep::Later { .. } => "454".to_owned(),
            SaslStep::Malformed => "501".to_owned(),
        }
    }

    #[tokio::test]
    async fn plain() {
        let authenticator = scram_users();
        let long = format!("\0bob\0{}", "x".repeat(check::MAX_PASSWORD + 1));
        for (message, expected) in [
            ("\0bob\0correct horse", "235 user:bob"),
            // As the file spells it.
            ("\0ANNA@example.org\0correct horse", "235 user:Anna@example.org"),
            // Prepared (RFC 4013).
            ("\0b\u{ad}ob\0correct horse", "235 user:bob"),
            ("\0bob\0correct\u{a0}horse", "235 user:bob"),
            // The authorization identity (RFC 4616 2).
            ("bob\0bob\0correct horse", "235 user:bob"),
            ("BOB\0bob\0correct horse", "235 user:bob"),
            ("anna@EXAMPLE.org\0Anna@example.org\0correct horse", "235 user:Anna@example.org"),
            ("Anna@example.org\0bob\0correct horse", "535 bob: authorization identity"),
            ("root\0bob\0correct horse", "535 bob: authorization identity"),
            ("root\0bob\0wrong", "535 bob: wrong password"),
            ("\0bob\0wrong", "535 bob: wrong password"),
            ("\0bob\0Correct horse", "535 bob: wrong password"),
            ("\0bob\0", "535 bob: wrong password"),
            (&long, "535 bob: wrong password"),
            ("\0carl\0correct horse", "535 carl: unknown user"),
            ("carl\0carl\0correct horse", "535 carl: unknown user"),
            ("\0\0correct horse", "535 -: unknown user"),
            ("\0c\u{1b}[31m\0x", "535 c?[31m: unknown user"),
            ("\0c\u{202e}lrac\0x", "535 c?lrac: unknown user"),
            ("\0out\0x", "535 out: the user's hash cannot be used"),
            ("", "501"),
            ("bob", "501"),
            ("\0bob", "501"),
            ("bob\0correct horse", "501"),
            ("\0bob\0correct\0horse", "501"),
        ] {
            assert_eq!(
                played(&authenticator, "PLAIN", &[message.as_bytes()]).await,
                [expected],
                "{message:?}"
            );
            let steps = played(&authenticator, "plain", &[b"-", message.as_bytes()]).await;
            assert_eq!(steps, ["334 ", expected], "{message:?}");
        }
        assert_eq!(played(&authenticator, "PLAIN", &[b"\0b\xff\0x"]).await, ["501"]);
    }

    #[tokio::test]
    async fn login() {
        let authenticator = scram_users();
        let (name, password) = ("334 Username:", "334 Password:");
        for (responses, expected) in [
            (&["-", "bob", "correct horse"][..], &[name, password, "235 user:bob"][..]),
            (&["bob", "correct horse"], &[password, "235 user:bob"]),
            (&["BOB", "correct\u{a0}horse"], &[password, "235 user:bob"]),
            (&["b\u{ad}ob", "correct horse"], &[password, "235 user:bob"]),
            (&["-", "bob", "wrong"], &[name, password, "535 bob: wrong password"]),
            (&["carl", "correct horse"], &[password, "535 carl: unknown user"]),
            (&["out", "x"], &[password, "535 out: the user's hash cannot be used"]),
            (&["", ""], &[password, "535 -: unknown user"]),
            (&["bob", ""], &[password, "535 bob: wrong password"]),
            (&["bob", "correct horse", "again"], &[password, "235 user:bob", "501"]),
            (&["bob", "wrong", "correct horse"], &[password, "535 bob: wrong password", "501"]),
        ] {
            let responses: Vec<_> = responses.iter().map(|response| response.as_bytes()).collect();
            assert_eq!(played(&authenticator, "LOGIN", &responses).await, expected);
        }
        assert_eq!(played(&authenticator, "LOGIN", &[b"b\xff"]).await, ["501"]);
    }

    #[tokio::test]
    async fn external() {
        let authenticator = scram_users();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        for (certificate, responses, expected) in [
            (&["bob"][..], &["-", ""][..], &["334 ", "235 user:bob"][..]),
            (&["bob"], &[""], &["235 user:bob"]),
            (&["BOB"], &["bob"], &["235 user:bob"]),
            // The first name that is a user's.
            (&["carl", "anna@EXAMPLE.org", "bob"], &[""], &["235 user:Anna@example.org"]),
            (&["bob"], &["anna@example.org"], &["535 bob: authorization identity"]),
            (&["bob"], &["root"], &["535 bob: authorization identity"]),
            (&["bob"], &["", ""], &["235 user:bob", "501"]),
        ] {
            let mut exchange = authenticator.external(&names(certificate), HERE).unwrap();
            let mut steps = Vec::new();
            for response in responses {
                let response = Some(response.as_bytes()).filter(|response| *response != b"-");
                steps.push(text(&exchange.step(response).await));
            }
            assert_eq!(steps, expected, "{certificate:?}");
        }
        // A user who is shut out does not get in by another name.
        for nobody in [&["carl"][..], &["out"], &["out", "bob"], &[""], &[]] {
            assert!(authenticator.external(&names(nobody), HERE).is_none(), "{nobody:?}");
            assert!(!authenticator.knows(&names(nobody)));
        }
        assert!(authenticator.knows(&names(&["carl", "bob"])));
    }

    #[tokio::test]
    async fn passwords_of_all_schemes() {
        // Latin-1 octets; a password that SASLprep refuses; one that it changes.
        for (hashed, sent) in [
            (&b"Gr\xf6\xdfe"[..], &b"Gr\xf6\xdfe"[..]),
            ("\u{1f511}".as_bytes(), "\u{1f511}".as_bytes()),
            ("\u{fb01}sh".as_bytes(), "\u{fb01}sh".as_bytes()),
            (b"fish", "\u{fb01}sh".as_bytes()),
        ] {
            let authenticator =
                authenticator(&format!("bob:{{SCRAM-SHA-256}}{}\n", Verifier::new(hashed).unwrap()));
            assert_eq!(
                played(&authenticator, "PLAIN", &[&[b"\0bob\0", sent].concat()]).await,
                ["235 user:bob"]
            );
            assert_eq!(played(&authenticator, "LOGIN", &[b"bob", sent]).await[1], "235 user:bob");
        }
        let crypt = authenticator(&format!("bob:{CRYPT}\n"));
        assert_eq!(
            [false, true].map(|binding| crypt.offered(binding)).map(|line| line.to_string()),
            ["PLAIN LOGIN"; 2]
        );
        assert!(
            crypt.exchange("SCRAM-SHA-256", HERE, None).is_none()
                && crypt.exchange("EXTERNAL", HERE, None).is_none()
        );
        assert_eq!(played(&crypt, "PLAIN", &[b"\0bob\0correct horse"]).await, ["235 user:bob"]);
        assert_eq!(played(&crypt, "PLAIN", &[b"\0carl\0correct horse"]).await, ["535 carl: unknown user"]);
    }

    /// Returns whether and how an exchange of one message ends while no check can be made.
    async fn unchecked(authenticator: &Authenticator, message: &str) -> Option<String> {
        let _places = authenticator.shared.checks.occupy().await.unwrap();
        let mut exchange = authenticator.exchange("PLAIN", HERE, None).unwrap();
        let mut step = pin!(exchange.step(Some(message.as_bytes())));
        match poll_fn(|context| Poll::Ready(step.as_mut().poll(context))).await {
            Poll::Ready(step) => Some(text(&step)),
            Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn a_success_is_remembered_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let replace = |authenticator: &Authenticator, bob: &str| {
            std::fs::write(&path, format!("bob:{bob}\nanna:{SCRAM}\n")).unwrap();
            authenticator.replace(Directory::read(&path, &ALL).1.unwrap());
        };
        std::fs::write(&path, format!("bob:{SCRAM}\nanna:{SCRAM}\n")).unwrap();
        let authenticator = Authenticator::open(Some(&path), &ALL, [7; 32]).unwrap();
        let right = "\0bob\0correct horse";
        // Neither a wrong password nor a right one that does not let its user in.
        for (message, expected) in [
            ("\0bob\0wrong", "535 bob: wrong password"),
            ("root\0bob\0correct horse", "535 bob: authorization identity"),
            ("\0carl\0correct horse", "535 carl: unknown user"),
        ] {
            assert_eq!(played(&authenticator, "PLAIN", &[message.as_bytes()]).await, [expected]);
            assert_eq!(unchecked(&authenticator, message).await, None, "{message}");
        }
        assert_eq!(unchecked(&authenticator, right).await, None);
        assert_eq!(played(&authenticator, "PLAIN", &[right.as_bytes()]).await, ["235 user:bob"]);
        for (message, expected) in [
            (right, Some("235 user:bob")),
            ("BOB\0b\u{ad}ob\0correct\u{a0}horse", Some("235 user:bob")),
            // These cost the full check as always, even the right password of a user who is not let in.
            ("\0bob\0wrong", None),
            ("\0bob\0", None),
            ("root\0bob\0correct horse", None),
            ("\0anna\0correct horse", None),
            ("\0carl\0correct horse", None),
        ] {
            assert_eq!(unchecked(&authenticator, message).await.as_deref(), expected, "{message}");
        }
        // A changed further field does not matter. A changed hash does, even if the old one comes back.
        replace(&authenticator, &format!("{SCRAM}:1000"));
        assert_eq!(unchecked(&authenticator, right).await.as_deref(), Some("235 user:bob"));
        replace(&authenticator, CRYPT);
        assert_eq!(unchecked(&authenticator, right).await, None);
        replace(&authenticator, SCRAM);
        assert_eq!(unchecked(&authenticator, right).await, None);
    }

    /// A minimal client of RFC 5802.
    struct Client {
        header: &'static str,
        escaped: &'static str,
        password: &'static str,
        binding: &'static [u8],
    }

    impl Client {
        fn bare(&self) -> String {
            format!("n={},r=rOprNGfwEbeRWgbNEkqO", self.escaped)
        }

        fn first(&self) -> String {
            format!("{}{}", self.header, self.bare())
        }

        /// Returns the client-final-message and the signature to expect.
        fn last(&self, challenge: &str) -> (String, String) {
            let part = |name: &str| challenge.split(',').find_map(|part| part.strip_prefix(name)).unwrap();
            let (nonce, salt, iterations) = (part("r="), part("s="), part("i="));
            assert!(nonce.starts_with("rOprNGfwEbeRWgbNEkqO") && nonce.len() > 30, "{nonce}");
            let salt = STANDARD.decode(salt).unwrap();
            // Hi() of RFC 5802 2.2
            let mut round = mac(self.password.as_bytes(), &[&salt, &[0, 0, 0, 1]]);
            let mut salted = round;
            for _ in 1..iterations.parse::<u32>().unwrap() {
                round = mac(self.password.as_bytes(), &[&round]);
                salted.iter_mut().zip(round).for_each(|(octet, more)| *octet ^= more);
            }
            let without_proof =
                format!("c={},r={nonce}", STANDARD.encode([self.header.as_bytes(), self.binding].concat()));
            let message = format!("{},{challenge},{without_proof}", self.bare());
            let client_key = mac(&salted, &[b"Client Key"]);
            let signature = mac(&Sha256::digest(client_key), &[message.as_bytes()]);
            let proof: Vec<_> = client_key.iter().zip(signature).map(|(key, octet)| key ^ octet).collect();
            let server = mac(&mac(&salted, &[b"Server Key"]), &[message.as_bytes()]);
            (
                format!("{without_proof},p={}", STANDARD.encode(proof)),
                format!("334 v={}", STANDARD.encode(server)),
            )
        }
    }

    #[tokio::test]
    async fn scram() {
        let authenticator = scram_users();
        let (right, wrong) = ("correct horse", "wrong horse");
        for (header, escaped, password, expected) in [
            ("n,,", "bob", right, "235 user:bob"),
            ("y,,", "bob", right, "235 user:bob"),
            ("n,,", "anna@EXAMPLE.ORG", right, "235 user:Anna@example.org"),
            ("n,,", "a=2Cb=3Dc", right, "235 user:a,b=c"),
            ("n,a=,", "bob", right, "235 user:bob"),
            ("n,a=bob,", "bob", right, "235 user:bob"),
            ("n,a=A=2Cb=3Dc,", "a=2Cb=3Dc", right, "235 user:a,b=c"),
            ("n,a=root,", "bob", right, "535 bob: authorization identity"),
            ("n,a=root,", "bob", wrong, "535 bob: wrong password"),
            ("n,,", "bob", wrong, "535 bob: wrong password"),
            ("n,,", "carl", right, "535 carl: unknown user"),
            ("n,a=carl,", "carl", right, "535 carl: unknown user"),
            ("n,,", "out", right, "535 out: the user's hash cannot be used"),
        ] {
            let client = Client { header, escaped, password, binding: b"" };
            let mut exchange = authenticator.exchange("SCRAM-SHA-256", HERE, None).unwrap();
            if header == "n,," {
                assert_eq!(text(&exchange.step(None).await), "334 ");
            }
            let challenge = text(&exchange.step(Some(client.first().as_bytes())).await);
            let (last, signature) = client.last(challenge.strip_prefix("334 ").unwrap());
            let mut outcome = text(&exchange.step(Some(last.as_bytes())).await);
            if expected.starts_with("235") {
                assert_eq!(outcome, signature);
                outcome = text(&exchange.step(Some(b"")).await);
            }
            assert_eq!(outcome, expected, "{header}{escaped} {password}");
            assert_eq!(text(&exchange.step(Some(b"")).await), "501");
        }
    }

    /// RFC 5802 6, RFC 9266.
    #[tokio::test]
    async fn scram_with_channel_binding() {
        let authenticator = scram_users();
        assert_eq!(&*authenticator.offered(true), "PLAIN LOGIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS");
        assert_eq!(&*authenticator.offered(false), "PLAIN LOGIN SCRAM-SHA-256");
        assert!(authenticator.exchange(SCRAM_PLUS, HERE, None).is_none());
        let (bare, plus) = ("SCRAM-SHA-256", "scram-sha-256-PLUS");
        let (ours, theirs): (&[u8], &[u8]) = (&[7; 32], &[8; 32]);
        for (mechanism, header, escaped, password, binding, expected) in [
            (plus, "p=tls-exporter,,", "bob", "correct horse", ours, "235 user:bob"),
            (plus, "p=tls-exporter,a=bob,", "bob", "correct horse", ours, "235 user:bob"),
            (plus, "p=tls-exporter,a=root,", "bob", "correct horse", ours, "535 bob: authorization identity"),
            // An attacker in between, who shares another TLS session with the client; or no TLS at all.
            (plus, "p=tls-exporter,,", "bob", "correct horse", theirs, "535 bob: wrong password"),
            (plus, "p=tls-exporter,,", "bob", "correct horse", b"", "535 bob: wrong password"),
            (plus, "p=tls-exporter,,", "bob", "wrong horse", ours, "535 bob: wrong password"),
            (plus, "p=tls-exporter,,", "carl", "correct horse", ours, "535 carl: unknown user"),
            (plus, "p=tls-exporter,,", "carl", "correct horse", theirs, "535 carl: unknown user"),
            (
                plus,
                "p=tls-unique,,",
                "bob",
                "correct horse",
                ours,
                "535 bob: channel binding of a kind that is not offered",
            ),
            (plus, "n,,", "bob", "correct horse", b"", "501"),
            (plus, "y,,", "bob", "correct horse", b"", "501"),
            (plus, "p=,,", "bob", "correct horse", ours, "501"),
            // Not used although it is offered.
            (bare, "n,,", "bob", "correct horse", b"", "235 user:bob"),
            (
                bare,
                "y,,",
                "bob",
                "correct horse",
                b"",
                "535 bob: the offer of SCRAM-SHA-256-PLUS was kept from the client",
            ),
            (
                bare,
                "y,,",
                "carl",
                "correct horse",
                b"",
                "535 carl: the offer of SCRAM-SHA-256-PLUS was kept from the client",
            ),
            (bare, "p=tls-exporter,,", "bob", "correct horse", ours, "501"),
        ] {
            let client = Client { header, escaped, password, binding };
            let mut exchange = authenticator.exchange(mechanism, HERE, Some([7; 32])).unwrap();
            let mut outcome = text(&exchange.step(Some(client.first().as_bytes())).await);
            if let Some(challenge) = outcome.strip_prefix("334 ") {
                let (last, signature) = client.last(challenge);
                outcome = text(&exchange.step(Some(last.as_bytes())).await);
                if outcome == signature {
                    outcome = text(&exchange.step(Some(b"")).await);
                }
            }
            assert_eq!(outcome, expected, "{mechanism} {header}{escaped} {password}");
        }
    }

    #[tokio::test]
    async fn guessing_is_put_off_for_those_who_are_there_and_who_are_not() {
        let limits = GuessLimits { per_address: 5, ..GuessLimits::NONE };
        for (mechanism, name) in [("PLAIN", "bob"), ("PLAIN", "carl"), ("LOGIN", "bob"), ("LOGIN", "carl")] {
            let authenticator = scram_users();
            authenticator.adopt(limits, 0);
            let tried = async |password: &str| {
                let plain = format!("\0{name}\0{password}");
                let responses: &[&[u8]] = match mechanism {
                    "PLAIN" => &[plain.as_bytes()],
                    _ => &[name.as_bytes(), password.as_bytes()],
                };
                played(&authenticator, mechanism, responses).await.pop().unwrap()
            };
            // A repeated password is not a guess.
            for password in ["1", "1", "1", "2", "3", "4", "1", "5"] {
                assert!(tried(password).await.starts_with(&format!("535 {name}: ")), "{password}");
            }
            assert_eq!(tried("6").await, "454");
            assert_eq!(tried("1").await, "454");
            assert_eq!(tried("correct horse").await, "454");
        }
    }

    #[tokio::test]
    async fn each_scram_proof_is_a_guess() {
        let limits = GuessLimits { per_address: 3, ..GuessLimits::NONE };
        // By now sessions hold clones of the authenticator.
        let authenticator = scram_users();
        authenticator.clone().adopt(limits, 0);
        for (password, expected) in
            [("1", "535"), ("1", "535"), ("1", "535"), ("1", "454"), ("correct horse", "454")]
        {
            let client = Client { header: "n,,", escaped: "bob", password, binding: b"" };
            let mut exchange = authenticator.exchange("SCRAM-SHA-256", HERE, None).unwrap();
            let challenge = text(&exchange.step(Some(client.first().as_bytes())).await);
            let (last, _) = client.last(challenge.strip_prefix("334 ").unwrap());
            let outcome = text(&exchange.step(Some(last.as_bytes())).await);
            assert!(outcome.starts_with(expected), "{password}: {outcome}");
        }
    }

    /// Counts the panics of this thread from now on; caught ones show nowhere else.
    fn panics() -> Arc<AtomicUsize> {
        let (count, thread) = (Arc::new(AtomicUsize::new(0)), std::thread::current().id());
        let (counted, before) = (Arc::clone(&count), std::panic::take_hook());
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().id() == thread {
                counted.fetch_add(1, Ordering::Relaxed);
            }
            before(panic);
        }));
        count
    }

    #[tokio::test]
    async fn what_makes_rsasl_panic_is_malformed() {
        let panics = panics();
        let authenticator = scram_users();
        for message in ["n,,", "n,,n", "n,a,n=bob,r=abc", "n,,n=bob,r", "p=tls-unique,,n=bob,r=abc", ""] {
            let steps = played(&authenticator, "SCRAM-SHA-256", &[message.as_bytes()]).await;
            assert_eq!(steps, ["501"], "{message}");
        }
        for message in ["c", "c=biws,r", "c=biws,r=abc,p=AAAA,", "c=biws,r=abc,p", ""] {
            let steps =
                played(&authenticator, "SCRAM-SHA-256", &[b"n,,n=bob,r=abc", message.as_bytes()]).await;
            assert_eq!(steps[1], "501", "{message}");
        }
        // A well-formed but wrong proof.
        for (name, why) in [("bob", "535 bob: wrong password"), ("carl", "535 carl: unknown user")] {
            let steps = played(
                &authenticator,
                "SCRAM-SHA-256",
                &[format!("n,,n={name},r=abc").as_bytes(), b"c=biws,r=abc,p=AAAA"],
            )
            .await;
            assert_eq!(steps[1], why);
        }
        assert_eq!(panics.load(Ordering::Relaxed), 0, "a message got past the guard");
    }

    #[tokio::test]
    async fn probes_do_not_tell_who_is_there() {
        let authenticator = scram_users();
        let probe = async |name: &str| {
            let step = played(&authenticator, "SCRAM-SHA-256", &[format!("n,,n={name},r=abc").as_bytes()])
                .await
                .remove(0);
            let (nonce, rest) = step.split_once(',').unwrap();
            (nonce.len(), rest.to_owned())
        };
        let (known, unknown, other) = (probe("bob").await, probe("carl").await, probe("dora").await);
        assert_eq!(unknown, probe("carl").await);
        assert_eq!(unknown, probe("CARL").await);
        assert_eq!(known, probe("BOB").await);
        assert_ne!(unknown, other);
        // Salts of the same length, and the same iteration count.
        assert_eq!(known.0, unknown.0);
        assert_eq!(known.1.len(), unknown.1.len());
        assert_eq!(known.1.rsplit(',').next(), unknown.1.rsplit(',').next());
    }

    #[tokio::test]
    async fn who_changed_meanwhile_is_not_let_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        std::fs::write(&path, format!("bob:{SCRAM}\nanna:{SCRAM}\n")).unwrap();
        let authenticator = Authenticator::open(Some(&path), &ALL, [7; 32]).unwrap();
        let mut exchanges = Vec::new();
        for name in ["bob", "anna"] {
            let mut exchange = authenticator.exchange("LOGIN", HERE, None).unwrap();
            exchange.step(Some(name.as_bytes())).await;
            exchanges.push(exchange);
        }
        let accounts = ["bob", "anna", "host:192.0.2.1"].map(|text| text.parse().unwrap());
        let before = authenticator.snapshot();
        assert_eq!(accounts.each_ref().map(|account| before.is_outdated(account)), [false; 3]);
        std::fs::write(&path, format!("bob:{CRYPT}\nanna:{SCRAM}:1000\n")).unwrap();
        let event = authenticator.replace(Directory::read(&path, &ALL).1.unwrap());
        assert!(matches!(event, UsersEvent::Reloaded { users: 2, ended } if ended == ["bob"]));
        assert_eq!(accounts.each_ref().map(|account| before.is_outdated(account)), [true, false, false]);
        let mut outcomes = Vec::new();
        for mut exchange in exchanges {
            outcomes.push(text(&exchange.step(Some(b"correct horse")).await));
        }
        assert_eq!(outcomes, ["535 bob: the user's line has changed meanwhile", "235 user:anna"]);
    }
}
