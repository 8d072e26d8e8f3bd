//! Notices about an alarm of the sequential test: an account is on probation, or would be.
//!
//! Pure: facts to text, for `notice`. An alarm is only a suspicion, so these mails begin with the fact that no action
//! is needed.

use std::time::Duration;

use super::incident::{Incident, facts, relayed, samples};
use super::letter::{duration, moment, shown};
use crate::account::Kind;
use crate::clock::Timestamp;
use crate::visible::shell_word;

/// How an account's messages are delayed.
#[derive(Debug, Clone, Copy)]
pub struct Delay {
    /// The delay of each message after its arrival.
    pub each: Duration,
    /// When the probation ends, as things stand.
    pub until: Timestamp,
}

/// What an alarm would have done to an observed account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spared {
    /// Its messages would have been delayed.
    Probation,
    /// It would have been blocked.
    Block,
}

/// `[detection] on_alarm = "probation"`
pub(super) fn delayed(incident: &Incident, delay: Delay) -> String {
    let account = &incident.account;
    let (word, name) = (shell_word(account.as_str()), shown(account.as_str()));
    let thief = match account.kind() {
        Kind::User(_) => "change the password, and only then unblock the account:",
        Kind::Host(_) => "mend the machine or the form that is abused, and only then unblock it:",
    };
    format!(
        "{}\
         What it sends is held back for {each}, and then GOES OUT BY ITSELF. The sender is not told, and nothing is lost.\n\
         Nothing need be done unless the mail is spam.\n\n\
         What comes now goes out at {until}, what comes later {each} after it came. If the account goes on\n\
         like this the delay starts anew, for 24 hours at the most; at {limit} such recipients within {period} it is blocked.\n\n\
         {facts}\n\
         WHAT TO DO\n\n\
         1. Look at what it sends:\n\
         \x20      gatepost quarantine list --account {word}\n\
         \x20      gatepost quarantine show ID\n\
         2. If it is not spam: nothing, or, to have it go out at once and end the delay,\n\
         \x20      gatepost unblock {word} --release\n\
         3. If it is spam, block the account before that time; what is held back then stays:\n\
         \x20      gatepost block {word}\n\
         \x20      gatepost kick {word}\n\
         \x20  Then {thief}\n\
         \x20      gatepost quarantine delete --account {word}\n\
         \x20      gatepost unblock {word}\n\
         \x20  Also clear the messages at the end of this mail from the mail server's queue.\n\n\
         {samples}{relayed}",
        suspicion(incident, &format!("The account {name} is on probation.")),
        each = duration(delay.each),
        until = moment(delay.until),
        limit = incident.limit,
        period = duration(incident.period),
        facts = facts(incident),
        samples = samples(incident),
        relayed = relayed(incident),
    )
}

/// `[detection] on_alarm = "notify"`
pub(super) fn suspected(incident: &Incident) -> String {
    let name = shown(incident.account.as_str());
    format!(
        "{}\
         `[detection] on_alarm` says that you are told, no more: nothing was done, and its mail goes out as ever.\n\
         There is at most one such mail a day for an account.\n\n\
         {}",
        suspicion(incident, &format!("The account {name} is suspected.")),
        by_hand(incident),
    )
}

/// `[limit] observe`
pub(super) fn would_alarm(incident: &Incident, spared: Spared) -> String {
    let name = shown(incident.account.as_str());
    let what = match spared {
        Spared::Probation => "What it sends would be held back for a while now",
        Spared::Block => "It would be blocked now",
    };
    format!(
        "{}\
         {what}, if `observe` did not say otherwise: nothing was done.\n\
         There is at most one such mail a day for an account.\n\n\
         {}",
        suspicion(incident, &format!("The account {name} is suspected.")),
        by_hand(incident),
    )
}

fn suspicion(incident: &Incident, what: &str) -> String {
    format!(
        "{what} More of its recipients do not exist than in honest mail: {} within {}.\n\
         Its password may be stolen; or somebody sends to an old list.\n",
        incident.invalid_recipients,
        duration(incident.period),
    )
}

fn by_hand(incident: &Incident) -> String {
    let word = shell_word(incident.account.as_str());
    format!(
        "{}\n\
         To block it by hand, and to undo that:\n\
         \x20      gatepost block {word}\n\
         \x20      gatepost unblock {word} --release\n\n\
         {}{}",
        facts(incident),
        samples(incident),
        relayed(incident),
    )
}
