//! One client's conversation as a state machine without I/O: event in, step out.
//!
//! `handle` is never async, never logs and never reads a clock. Replies that are ready are appended to the caller's
//! buffer, in command order. A step may ask the upstream without waiting: the machine keeps the commands not yet
//! answered. It never holds mail data. Order rules are in [`sequence`], reply texts in [`texts`].

mod event;
mod offer;
mod queue;
mod sequence;
pub mod texts;
mod transaction;

pub use event::{
    Answered, Ask, AuthOutcome, Delivery, Destination, Event, Given, Interruption, LineError, ParkOrder,
    ParkReason, Sources, Step, UpstreamFault, View,
};
use queue::{Pending, Queue};
use sequence::{Situation, Verb, out_of_order};
pub use transaction::{Bound, Recipient, Transaction};

use crate::account::Account;
use crate::guard::mimicry::{About, Place, Shuffle};
use crate::smtp::{Body, Command, CommandError, Extensions, Limits, MailCommand, RcptCommand, Reply};

/// What a session needs to know of the configuration and its connection.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Our host name.
    pub hostname: String,
    /// Whether TLS is used from the first octet.
    pub implicit_tls: bool,
    /// Whether the client may send without AUTH.
    pub relay_host: bool,
    /// The most octets in one message.
    pub max_message_size: u64,
    /// The most recipients in one transaction.
    pub max_recipients: usize,
    /// The most transactions in one session; 0 is no limit.
    pub max_transactions: u32,
    /// The number of errors at which the session ends (CONTRACT, SMTP).
    pub max_errors: u32,
    /// Whether a blocked account's mail is refused rather than parked.
    pub refuse_blocked: bool,
}

/// What the client said in EHLO or HELO, and what it was offered.
#[derive(Debug, Clone)]
pub struct Hello {
    /// The name it gave.
    pub name: String,
    /// Whether it said EHLO rather than HELO.
    pub extended: bool,
    /// The upstream's extensions as offered in our reply to EHLO. A reply to HELO offers nothing, but the same
    /// extensions are accepted after it, for the sake of old devices. If the upstream was not known then, what it
    /// turned out to have by a later MAIL.
    offered: Extensions,
    /// Whether the upstream's offer is known. If it is not, what it has was not offered either.
    upstream_known: bool,
}

/// One client's conversation.
#[derive(Debug)]
pub struct Session {
    terms: Terms,
    encrypted: bool,
    hello: Option<Hello>,
    user: Option<Account>,
    transaction: Option<Transaction>,
    pending: Queue,
    /// The 250 that the message being parked will get.
    told: Option<Reply>,
    errors: u32,
    transactions: u32,
    closing: bool,
    shuffle: Shuffle,
}

impl Session {
    /// Starts the session of a client that has connected. `seed` determines the made-up queue ids.
    pub fn new(terms: Terms, seed: u64) -> Self {
        Self {
            encrypted: terms.implicit_tls,
            terms,
            hello: None,
            user: None,
            transaction: None,
            pending: Queue::default(),
            told: None,
            errors: 0,
            transactions: 0,
            closing: false,
            shuffle: Shuffle::new(seed),
        }
    }

    /// Returns the transaction under way.
    pub fn transaction(&self) -> Option<&Transaction> {
        self.transaction.as_ref()
    }

    /// Returns what the client said in EHLO or HELO.
    pub fn hello(&self) -> Option<&Hello> {
        self.hello.as_ref()
    }

    /// Returns the user who logged in.
    pub fn user(&self) -> Option<&Account> {
        self.user.as_ref()
    }

    /// Whether the connection is encrypted.
    pub fn encrypted(&self) -> bool {
        self.encrypted
    }

    /// Whether the transaction under way is open upstream, or about to be.
    pub fn needs_upstream(&self) -> bool {
        self.pending.has_mail()
            || self.transaction.as_ref().is_some_and(|transaction| transaction.bound == Bound::Upstream)
    }

    /// Whether `line` may be handled while questions are open. All others wait for the answers; so does MAIL, which
    /// begins another upstream transaction.
    pub fn may_overtake(line: &Result<Command, LineError>) -> bool {
        matches!(
            line,
            Ok(Command::Rcpt(_))
                | Err(LineError::Command(
                    CommandError::ForwardPath { harvested: None } | CommandError::Rcpt(_)
                ))
        )
    }

    /// Whether a line for which [`Self::may_overtake`] holds has room behind the open questions; if not, their answers
    /// come first.
    pub fn has_room(&self) -> bool {
        // Our own reply is kept until its turn comes, even if nobody need be asked: a client must not make the queue
        // grow at will.
        self.surely_has_room() && self.pending.others() < self.terms.max_recipients
    }

    /// Whether one more recipient fits even if all open ones are accepted.
    fn surely_has_room(&self) -> bool {
        self.recipients_at_most() < self.max_recipients()
    }

    /// Counts the accepted recipients and those that may yet be.
    fn recipients_at_most(&self) -> usize {
        let accepted = self.transaction.as_ref().map_or(0, Transaction::accepted);
        accepted + self.pending.recipients()
    }

    /// Handles one event: appends the replies that are ready to `out`, and returns what to do next.
    pub fn handle(&mut self, event: Event, view: &View<'_>, out: &mut Vec<u8>) -> Step {
        if self.closing {
            return Step::Close;
        }
        let step = match event {
            Event::Connected => {
                let text = format!("{} ESMTP", self.terms.hostname).into();
                Reply { code: 220, enhanced: None, text }.encode_plain(out);
                Step::Read
            }
            Event::Line(line) => self.line(line, view, out),
            Event::TlsEstablished => {
                // RFC 3207 4.2: the server forgets what it learned before.
                self.encrypted = true;
                self.hello = None;
                self.user = None;
                self.transaction = None;
                Step::Read
            }
            Event::Authenticated(outcome) => self.authenticated(outcome, out),
            Event::Answered(answered) => {
                self.answered(answered, view, out);
                Step::Read
            }
            Event::ChunkReceived(octets) => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.in_chunks = true;
                }
                self.say(texts::chunk_received(octets), out)
            }
            Event::ChunkDiscarded => self.refused_chunk(out),
            Event::Delivered(delivery) => self.delivered(delivery, out),
            Event::TimedOut => self.last_words(&texts::TIMED_OUT, out),
            Event::Interrupted => self.last_words(&texts::SHUTTING_DOWN, out),
        };
        if self.closing { Step::Close } else { step }
    }

    /// Decides where the message goes. Called as late as possible, so that a block during reception still holds, and
    /// again if the message could not go there. `message_id` is called only if it is parked: some MTAs repeat the
    /// Message-ID in their 250.
    pub fn destination(&mut self, message_id: impl FnOnce() -> String, view: &View<'_>) -> Destination {
        let Some(transaction) = &mut self.transaction else { return Destination::Refuse };
        let reason = match transaction.bound {
            Bound::Unasked => ParkReason::AnsweredUnasked,
            Bound::Quarantine => ParkReason::Blocked,
            Bound::Upstream if view.blocked && self.terms.refuse_blocked => return Destination::Refuse,
            Bound::Upstream if view.blocked => ParkReason::Blocked,
            Bound::Upstream if view.interruption == Some(Interruption::CredentialsChanged) => {
                ParkReason::CredentialsChanged
            }
            Bound::Upstream if view.sources.probation() => ParkReason::Probation,
            Bound::Upstream => return Destination::Relay,
        };
        // On probation it stays open upstream until it is parked: if it cannot be, it is relayed at once.
        if reason != ParkReason::Probation {
            transaction.divert();
        }
        let recipients: Vec<&str> = transaction.accepted_addresses().collect();
        let sender = transaction.mail.reverse_path.as_str();
        let about = About { address: &message_id(), envelope: Some((sender, &recipients)) };
        let imitation = view.sources.precedents().imitate(Place::EndOfData, about, &mut self.shuffle);
        self.told = Some(imitation.reply.clone());
        Destination::Park(ParkOrder { told: imitation.reply, told_queue_id: imitation.queue_id, reason })
    }

    fn line(&mut self, line: Result<Command, LineError>, view: &View<'_>, out: &mut Vec<u8>) -> Step {
        if let Some(reply) = self.interrupted(&line, view) {
            return self.last_words(&reply, out);
        }
        match line {
            Ok(Command::Ehlo(name)) => self.hello_said(name, true, view, out),
            Ok(Command::Helo(name)) => self.hello_said(name, false, view, out),
            Ok(Command::StartTls) => match out_of_order(Verb::StartTls, &self.situation(view)) {
                Some(reply) => self.say(reply.clone(), out),
                None => {
                    self.say(texts::READY_FOR_TLS, out);
                    Step::StartTls
                }
            },
            Ok(Command::Auth { mechanism, initial }) => match out_of_order(Verb::Auth, &self.situation(view))
            {
                Some(reply) => self.say(reply.clone(), out),
                None => Step::Authenticate { mechanism, initial },
            },
            Ok(Command::Mail(command)) => self.mail(command, view, out),
            Ok(Command::Rcpt(command)) => self.rcpt(command, view, out),
            Ok(Command::Data) => self.data(view, out),
            Ok(Command::Bdat { size, last }) => self.bdat(size, last, view),
            Ok(Command::Rset) => {
                self.transaction = None;
                self.say(texts::OK, out)
            }
            Ok(Command::Noop) => self.say(texts::OK, out),
            Ok(Command::Help) => self.say(texts::HELP, out),
            Ok(Command::Vrfy) => self.say(texts::NOT_VERIFIED, out),
            Ok(Command::Expn) => self.say(texts::NO_EXPN, out),
            Ok(Command::Quit) => self.last_words(&texts::BYE, out),
            Err(LineError::Command(CommandError::ForwardPath { harvested })) => {
                self.broken_path(harvested, view, out)
            }
            Err(LineError::Command(error @ CommandError::Rcpt(_))) => {
                self.say_uncounted(texts::command_error(&error), out)
            }
            Err(LineError::Command(error @ CommandError::ChunkSize)) => {
                // Where the chunk ends is unknown, and its octets must not be run as commands.
                let reply = self.reckon(texts::command_error(&error));
                self.last_words(&reply, out)
            }
            Err(LineError::Command(CommandError::Http) | LineError::TlsHello) => {
                self.last_words(&texts::OTHER_PROTOCOL, out)
            }
            Err(LineError::Command(error)) => self.say(texts::command_error(&error), out),
            Err(LineError::TooLong) => self.say(texts::LINE_TOO_LONG, out),
            Err(LineError::AuthTooLong) => self.say(texts::SASL_TOO_LONG, out),
            Err(LineError::Fault) => self.say(texts::LINE_FAULT, out),
            // CONTRACT: no reply to RCPT is an error of the session.
            Err(LineError::RcptTooLong) => self.say_uncounted(texts::LINE_TOO_LONG, out),
            Err(LineError::RcptFault) => self.say_uncounted(texts::LINE_FAULT, out),
        }
    }

    /// Returns the 421 that ends the session, if it is to end. CONTRACT: a message under way is finished first (or
    /// parked, if the credentials changed). Only a message in chunks has commands in its middle.
    fn interrupted(&self, line: &Result<Command, LineError>, view: &View<'_>) -> Option<Reply> {
        let in_chunks = self.transaction.as_ref().is_some_and(|transaction| transaction.in_chunks);
        let goes_on = in_chunks && matches!(line, Ok(Command::Bdat { .. }));
        match (view.interruption?, goes_on) {
            (Interruption::CredentialsChanged | Interruption::ShuttingDown, true) => None,
            (Interruption::Kicked | Interruption::CredentialsChanged, _) => Some(texts::ENDED),
            (Interruption::ShuttingDown, false) => Some(texts::SHUTTING_DOWN),
        }
    }

    fn situation(&self, view: &View<'_>) -> Situation {
        Situation {
            greeted: self.hello.is_some(),
            encrypted: self.encrypted,
            can_encrypt: !self.terms.implicit_tls,
            can_authenticate: !view.mechanisms.is_empty(),
            authenticated: self.user.is_some(),
            relay_host: self.terms.relay_host,
            in_transaction: self.transaction.is_some() || self.pending.has_mail(),
            in_chunks: self.transaction.as_ref().is_some_and(|transaction| transaction.in_chunks),
            recipients: self.transaction.as_ref().map_or(0, Transaction::accepted),
        }
    }

    fn hello_said(&mut self, name: String, extended: bool, view: &View<'_>, out: &mut Vec<u8>) -> Step {
        // RFC 5321 4.1.4: EHLO in mid-session resets as RSET does.
        self.transaction = None;
        let upstream = view.sources.upstream();
        let (offered, upstream_known) = (offer::offered(upstream, self.encrypted), upstream.is_some());
        let mut text = self.terms.hostname.clone();
        if extended {
            for keyword in self.keywords(&offered, view.mechanisms) {
                text.push('\n');
                text.push_str(&keyword);
            }
        }
        self.hello = Some(Hello { name, extended, offered, upstream_known });
        Reply { code: 250, enhanced: None, text: text.into() }.encode_plain(out);
        Step::Read
    }

    /// The keywords of our EHLO reply: our own and the upstream's.
    fn keywords(&self, upstream: &Extensions, mechanisms: &str) -> Vec<String> {
        let mut keywords = vec!["PIPELINING".to_owned(), format!("SIZE {}", self.max_size(upstream))];
        if !self.encrypted {
            keywords.push("STARTTLS".to_owned());
        }
        // CONTRACT: never in the EHLO reply on cleartext.
        if self.encrypted && !mechanisms.is_empty() {
            keywords.push(format!("AUTH {mechanisms}"));
        }
        keywords.push("ENHANCEDSTATUSCODES".to_owned());
        keywords.extend(offer::passed_on(upstream));
        // RFC 5321 4.1.1.1: every command that 4.5.1 does not require of all.
        keywords.extend(["CHUNKING".to_owned(), "HELP".to_owned()]);
        keywords.push(self.limits(upstream).to_string());
        keywords
    }

    /// The smaller of our own maximum and the upstream's, in octets (RFC 1870 3).
    fn max_size(&self, upstream: &Extensions) -> u64 {
        match upstream.size {
            Some(Some(theirs)) if theirs > 0 => theirs.min(self.terms.max_message_size),
            _ => self.terms.max_message_size,
        }
    }

    /// The most octets that the incoming message may have.
    pub fn max_message_size(&self) -> u64 {
        self.hello.as_ref().map_or(self.terms.max_message_size, |hello| self.max_size(&hello.offered))
    }

    fn limits(&self, upstream: &Extensions) -> Limits {
        offer::limits(self.terms.max_recipients, self.terms.max_transactions, upstream)
    }

    fn max_recipients(&self) -> usize {
        let offered = self.hello.as_ref().and_then(|hello| self.limits(&hello.offered).rcpt_max);
        offered.and_then(|max| usize::try_from(max).ok()).unwrap_or(self.terms.max_recipients)
    }

    fn authenticated(&mut self, outcome: AuthOutcome, out: &mut Vec<u8>) -> Step {
        let reply = match outcome {
            AuthOutcome::Success(account) => {
                self.user = Some(account);
                texts::AUTHENTICATED
            }
            AuthOutcome::Denied => texts::BAD_CREDENTIALS,
            AuthOutcome::Malformed => texts::SASL_SYNTAX,
            AuthOutcome::BadBase64 => texts::SASL_BASE64,
            AuthOutcome::TooLong => texts::SASL_TOO_LONG,
            AuthOutcome::Cancelled => texts::SASL_CANCELLED,
            AuthOutcome::NotOffered => texts::NO_SUCH_MECHANISM,
            AuthOutcome::Later => texts::AUTH_LATER,
            AuthOutcome::Crowded => return self.last_words(&texts::TOO_MANY_SESSIONS, out),
        };
        self.say(reply, out)
    }

    fn mail(&mut self, mut command: MailCommand, view: &View<'_>, out: &mut Vec<u8>) -> Step {
        if let Some(reply) = out_of_order(Verb::Mail, &self.situation(view)) {
            return self.say(reply.clone(), out);
        }
        self.learn_offer(view);
        if let Some(reply) = self.unacceptable_mail(&command) {
            return self.say(reply, out);
        }
        command.parameters.forget_the_past(view.sources.time());
        // Checked before the block: it must not show.
        if view.sources.sender().is_some_and(|(rules, account)| !rules.allow(account, &command.reverse_path))
        {
            return self.say(texts::FOREIGN_SENDER, out);
        }
        if self.transactions >= self.terms.max_transactions && self.terms.max_transactions > 0 {
            return self.last_words(&texts::TOO_MANY_TRANSACTIONS, out);
        }
        self.transactions += 1;
        if !view.blocked {
            self.pending.push_back(Pending::Mail(command.clone()));
            return Step::Ask(Ask::Mail(command));
        }
        if self.terms.refuse_blocked {
            return self.say(texts::BLOCKED, out);
        }
        if !view.sources.room() {
            return self.say(texts::QUARANTINE_FULL, out);
        }
        let told = imitated(Place::Mail, command.reverse_path.as_str(), view, &mut self.shuffle);
        self.transaction = Some(Transaction::new(command, None, Bound::Upstream));
        self.say(told, out)
    }

    /// If the upstream was not known at EHLO, takes what it has by now as offered: else the client could not use that as
    /// long as the session lasts. Of what our reply to EHLO said only SIZE and LIMITS can become narrower, and the
    /// upstream would insist on that anyway.
    fn learn_offer(&mut self, view: &View<'_>) {
        let Some(hello) = self.hello.as_mut().filter(|hello| !hello.upstream_known) else { return };
        if let Some(upstream) = view.sources.upstream() {
            hello.offered = offer::offered(Some(upstream), self.encrypted);
            hello.upstream_known = true;
        }
    }

    /// Returns what is wrong with MAIL, given what was offered.
    fn unacceptable_mail(&self, command: &MailCommand) -> Option<Reply> {
        let offered = &self.hello.as_ref()?.offered;
        let parameters = &command.parameters;
        if parameters.size.is_some_and(|size| size > self.max_size(offered)) {
            return Some(texts::TOO_BIG);
        }
        if let Some(missing) = parameters.missing_extension(offered) {
            return Some(self.not_offered(missing));
        }
        // Refused here for all alike, as the upstream would: for a blocked account it is not asked.
        if let Some(name) = offer::beyond(parameters, offered) {
            return Some(texts::command_error(&CommandError::ParameterValue(name)));
        }
        (!command.reverse_path.is_ascii() && !parameters.smtputf8).then_some(texts::SENDER_NEEDS_SMTPUTF8)
    }

    /// The reply to a parameter of an extension that was not offered.
    fn not_offered(&self, extension: &str) -> Reply {
        let upstream_known = self.hello.as_ref().is_none_or(|hello| hello.upstream_known);
        // An upstream that was not there yet may have it, but REQUIRETLS also takes TLS on our side (RFC 8689 2).
        if upstream_known || extension == "REQUIRETLS" && !self.encrypted {
            texts::PARAMETER_UNKNOWN
        } else {
            texts::UPSTREAM_UNAVAILABLE
        }
    }

    fn rcpt(&mut self, command: RcptCommand, view: &View<'_>, out: &mut Vec<u8>) -> Step {
        if let Some(reply) = self.unacceptable_rcpt(Some(&command), view) {
            return self.say_uncounted(reply, out);
        }
        if !view.blocked {
            self.pending.push_back(Pending::Rcpt(command.clone()));
            return Step::Ask(Ask::Rcpt(command));
        }
        if self.terms.refuse_blocked {
            return self.say_uncounted(texts::BLOCKED, out);
        }
        self.pending.push_back(Pending::Unasked(command));
        self.settle(view, out);
        Step::Read
    }

    /// Returns what is wrong with RCPT, short of asking. `None` stands for a RCPT with a malformed path.
    fn unacceptable_rcpt(&self, command: Option<&RcptCommand>, view: &View<'_>) -> Option<Reply> {
        if let Some(reply) = out_of_order(Verb::Rcpt, &self.situation(view)) {
            return Some(reply.clone());
        }
        let command = command?;
        if !self.surely_has_room() {
            return Some(texts::TOO_MANY_RECIPIENTS);
        }
        let orcpt = command.parameters.orcpt.as_deref().unwrap_or_default();
        let ascii = command.forward_path.is_ascii() && orcpt.is_ascii();
        if !ascii && !self.declared_smtputf8() {
            return Some(texts::NEEDS_SMTPUTF8); // RFC 6531 3.2, RFC 6533 3
        }
        let dsn = self.hello.as_ref().is_some_and(|hello| hello.offered.dsn);
        let uses_dsn = command.parameters.notify.is_some() || command.parameters.orcpt.is_some();
        (uses_dsn && !dsn).then(|| self.not_offered("DSN"))
    }

    /// Whether the MAIL to which a RCPT now belongs had SMTPUTF8.
    fn declared_smtputf8(&self) -> bool {
        let under_way = self.transaction.as_ref().map(|transaction| transaction.mail.parameters.smtputf8);
        self.pending.smtputf8().or(under_way).unwrap_or_default()
    }

    fn broken_path(&mut self, harvested: Option<Vec<u8>>, view: &View<'_>, out: &mut Vec<u8>) -> Step {
        if let Some(reply) = self.unacceptable_rcpt(None, view) {
            return self.say_uncounted(reply, out);
        }
        match harvested {
            Some(octets) if !octets.is_ascii() && !self.declared_smtputf8() => {
                self.say_uncounted(texts::NEEDS_SMTPUTF8, out)
            }
            Some(octets) if !view.blocked => {
                self.pending.push_back(Pending::BrokenPath);
                Step::Ask(Ask::BrokenPath(octets))
            }
            _ => self.say_uncounted(texts::NO_PATH, out),
        }
    }

    fn data(&mut self, view: &View<'_>, out: &mut Vec<u8>) -> Step {
        if let Some(reply) = out_of_order(Verb::Data, &self.situation(view)) {
            return self.say(reply.clone(), out);
        }
        let binary = self
            .transaction
            .as_ref()
            .is_some_and(|transaction| transaction.mail.parameters.body == Some(Body::BinaryMime));
        if binary {
            return self.say(texts::BINARY_NEEDS_BDAT, out); // RFC 3030 3
        }
        self.say(texts::GO_AHEAD, out);
        Step::ReceiveData
    }

    fn bdat(&mut self, size: u64, last: bool, view: &View<'_>) -> Step {
        // RFC 3030 2: the octets follow whatever the reply is.
        if out_of_order(Verb::Bdat, &self.situation(view)).is_some() {
            return Step::DiscardChunk(size);
        }
        Step::ReceiveChunk { size, last }
    }

    fn refused_chunk(&mut self, out: &mut Vec<u8>) -> Step {
        let reply = if self.transaction.is_none() { texts::NEED_MAIL } else { texts::NO_RECIPIENTS };
        self.say(reply, out)
    }

    fn delivered(&mut self, delivery: Delivery, out: &mut Vec<u8>) -> Step {
        self.transaction = None;
        let told = self.told.take();
        match delivery {
            Delivery::Replied(reply) => self.pass(&reply, out),
            // The order to park set it; a message parked without an order is a defect of the driver.
            Delivery::Parked => self.pass(&told.unwrap_or(texts::OK), out),
            Delivery::Refused => self.say(texts::BLOCKED, out),
            Delivery::Fault(fault) => self.say(texts::upstream_fault(fault), out),
            Delivery::BadNewline => self.say(texts::BAD_NEWLINE, out),
            Delivery::TooBig => self.say(texts::TOO_BIG, out),
            Delivery::ForeignFrom => self.say(texts::FOREIGN_FROM, out),
            Delivery::Loop => self.say(texts::LOOP, out),
            Delivery::QuarantineFull(_) => self.say(texts::QUARANTINE_FULL, out),
            Delivery::NoMemory => self.say(texts::NO_MEMORY, out),
            Delivery::Unreadable | Delivery::NoRoute => self.say(texts::LOCAL_TROUBLE, out),
        }
    }

    /// Answers the oldest question; its reply and those waiting behind it become ready.
    fn answered(&mut self, answered: Answered, view: &View<'_>, out: &mut Vec<u8>) {
        match self.pending.pop_front() {
            Some(Pending::Mail(command)) => {
                let (reply, accepted) = match answered {
                    Answered::Replied(reply) => (reply, true),
                    Answered::Fault(fault) => (texts::upstream_fault(fault), false),
                    Answered::MailRefused(_) | Answered::Unasked | Answered::BrokenPath => {
                        (texts::UPSTREAM_UNAVAILABLE, false)
                    }
                };
                self.write(&reply, out);
                if accepted && reply.is_completion() {
                    self.transaction = Some(Transaction::new(command, Some(reply), Bound::Upstream));
                }
            }
            Some(Pending::Rcpt(command)) => self.rcpt_answered(command, answered, view, out),
            Some(Pending::BrokenPath) => {
                if view.blocked
                    && !self.terms.refuse_blocked
                    && let Some(transaction) = &mut self.transaction
                {
                    transaction.divert();
                }
                self.write(&texts::NO_PATH, out);
            }
            // Never at the front: settled as soon as it gets there.
            Some(local @ (Pending::Unasked(_) | Pending::Said(_))) => self.pending.push_front(local),
            None => {}
        }
        self.settle(view, out);
    }

    fn rcpt_answered(
        &mut self,
        command: RcptCommand,
        answered: Answered,
        view: &View<'_>,
        out: &mut Vec<u8>,
    ) {
        let Some(transaction) = &mut self.transaction else {
            return self.write(&texts::NEED_MAIL, out); // its MAIL was refused
        };
        let upstream = match answered {
            Answered::Unasked if self.terms.refuse_blocked => return self.write(&texts::BLOCKED, out),
            Answered::Unasked | Answered::BrokenPath => {
                return self.unasked(command, view, out);
            }
            Answered::Replied(reply) => Ok(reply),
            Answered::Fault(fault) => Err(texts::upstream_fault(fault)),
            Answered::MailRefused(reply) => Err(reply),
        };
        // CONTRACT: the crossing RCPT, and any answer that comes after the block, is shown as 250.
        let covered = view.blocked && !self.terms.refuse_blocked;
        let imitation = covered.then(|| {
            transaction.divert();
            imitated(Place::Rcpt, command.forward_path.as_str(), view, &mut self.shuffle)
        });
        let told = match (&imitation, &upstream) {
            (Some(told), _) | (None, Ok(told) | Err(told)) => told,
        };
        let accepted = told.is_completion();
        self.write(told, out);
        if let Some(transaction) = &mut self.transaction {
            let recipient = Recipient { command, upstream: upstream.ok(), accepted };
            transaction.note(recipient, self.terms.max_recipients, self.pending.recipients());
        }
    }

    fn unasked(&mut self, command: RcptCommand, view: &View<'_>, out: &mut Vec<u8>) {
        let Some(transaction) = &mut self.transaction else {
            return self.write(&texts::NEED_MAIL, out);
        };
        let told = imitated(Place::Rcpt, command.forward_path.as_str(), view, &mut self.shuffle);
        transaction.bound = Bound::Unasked;
        let recipient = Recipient { command, upstream: None, accepted: true };
        transaction.note(recipient, self.terms.max_recipients, self.pending.recipients());
        self.write(&told, out);
    }

    /// Answers the commands at the front of the queue that need nobody.
    fn settle(&mut self, view: &View<'_>, out: &mut Vec<u8>) {
        while !self.closing {
            match self.pending.pop_front() {
                Some(Pending::Said(reply)) => self.write(&reply, out),
                Some(Pending::Unasked(command)) => self.unasked(command, view, out),
                Some(asked) => return self.pending.push_front(asked),
                None => return,
            }
        }
    }

    /// Gives a reply of our own that never counts as an error of the session (CONTRACT: "none in answer to RCPT").
    fn say_uncounted(&mut self, reply: Reply, out: &mut Vec<u8>) -> Step {
        if self.pending.is_empty() {
            self.write(&reply, out);
        } else {
            self.pending.push_back(Pending::Said(reply));
        }
        Step::Read
    }

    /// Gives a reply of our own, counting it if it is an error.
    #[inline(never)] // see "The code of a message" in docs/performance.md
    fn say(&mut self, reply: Reply, out: &mut Vec<u8>) -> Step {
        let reply = self.reckon(reply);
        self.say_uncounted(reply, out)
    }

    /// Counts the reply if it is an error; at the limit a 421 takes its place.
    #[inline(never)] // see "The code of a message" in docs/performance.md
    fn reckon(&mut self, reply: Reply) -> Reply {
        if reply.is_permanent() {
            self.errors += 1;
        }
        if self.errors >= self.terms.max_errors && reply.is_permanent() {
            texts::TOO_MANY_ERRORS
        } else {
            reply
        }
    }

    /// Gives a reply that is not ours to count: the upstream's, or an imitation of one.
    fn pass(&mut self, reply: &Reply, out: &mut Vec<u8>) -> Step {
        self.write(reply, out);
        Step::Read
    }

    fn write(&mut self, reply: &Reply, out: &mut Vec<u8>) {
        // RFC 5321 3.8: the server closes after 421, whoever said it.
        if reply.code == 421 {
            self.closing = true;
        }
        reply.encode(out);
    }

    /// Gives one reply and closes; a 421 waits for the answers to earlier commands.
    fn last_words(&mut self, reply: &Reply, out: &mut Vec<u8>) -> Step {
        if !self.pending.is_empty() {
            self.pending.push_back(Pending::Said(reply.clone()));
            return Step::Read;
        }
        self.write(reply, out);
        self.closing = true;
        Step::Close
    }
}

/// Imitates the upstream's reply to a command with this address, if it is not asked or its answer must not show.
fn imitated(place: Place, address: &str, view: &View<'_>, shuffle: &mut Shuffle) -> Reply {
    view.sources.precedents().imitate(place, About::address(address), shuffle).reply
}

#[cfg(test)]
mod tests;
