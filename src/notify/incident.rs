//! What the abuse desk is told of an account, whatever the notice is: the facts, the latest invalid recipients and the
//! latest messages.
//!
//! Pure: facts to text, for `notice` and `suspicion`.

use std::collections::BTreeSet;
use std::time::Duration;

use super::letter::{moment, shown};
use crate::account::Account;
use crate::clock::Timestamp;
use crate::history::{Relayed, Sample, Uncounted};

/// What an account did.
#[derive(Debug, Clone)]
pub struct Incident {
    /// The account.
    pub account: Account,
    /// Invalid recipients in the window.
    pub invalid_recipients: u32,
    /// The limit.
    pub limit: u32,
    /// The length of the window.
    pub period: Duration,
    /// The reason for the block.
    pub reason: Option<String>,
    /// When the first of them was asked for.
    pub first: Option<Timestamp>,
    /// When the last of them was asked for.
    pub last: Option<Timestamp>,
    /// The latest of them.
    pub samples: Vec<Sample>,
    /// The number of its open sessions.
    pub sessions: usize,
    /// The latest messages that the upstream accepted.
    pub relayed: Vec<Relayed>,
    /// Recipients that were not counted.
    pub uncounted: Vec<Uncounted>,
}

pub(super) fn facts(incident: &Incident) -> String {
    format!(
        "First invalid recipient:  {}\n\
         Last invalid recipient:   {}\n\
         Client addresses:         {}\n\
         Open sessions now:        {}\n{}",
        time(incident.first),
        time(incident.last),
        clients(incident),
        incident.sessions,
        uncounted(incident),
    )
}

fn uncounted(incident: &Incident) -> String {
    let line = |Uncounted { domain, answers }: &Uncounted| {
        format!("Not counted:              {answers} at {}, which refused everybody\n", shown(domain))
    };
    incident.uncounted.iter().map(line).collect()
}

pub(super) fn time(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "unknown".to_owned(), moment)
}

pub(super) fn clients(incident: &Incident) -> String {
    let clients: BTreeSet<String> = incident.samples.iter().map(|sample| sample.client.to_string()).collect();
    if clients.is_empty() {
        return "unknown".to_owned();
    }
    clients.into_iter().collect::<Vec<_>>().join(", ")
}

pub(super) fn samples(incident: &Incident) -> String {
    let what = match incident.samples.len() {
        1 => "RECIPIENT THAT DOES NOT EXIST".to_owned(),
        count => format!("{count} RECIPIENTS THAT DO NOT EXIST"),
    };
    format!("THE LATEST {what}\n\n{}", sample_lines(incident))
}

pub(super) fn sample_lines(incident: &Incident) -> String {
    let mut text = String::new();
    for sample in &incident.samples {
        text += &format!("{}  {}  from {}\n", moment(sample.at), shown(&sample.address), sample.client);
    }
    text
}

pub(super) fn relayed(incident: &Incident) -> String {
    if incident.relayed.is_empty() {
        // The ledger keeps them of such accounts alone over a restart, and of all others for an hour.
        return "\nGatepost knows of no message of this account that the mail server took. It does not remember for long what an account \
                sent before its first invalid recipient: for an hour after its last session, and not over a restart. The mail server's \
                log has it all.\n"
            .to_owned();
    }
    let what = match incident.relayed.len() {
        1 => "MESSAGE THAT THE MAIL SERVER STILL TOOK, with its reply; it may wait in its queue".to_owned(),
        count => {
            format!(
                "{count} MESSAGES THAT THE MAIL SERVER STILL TOOK, with its reply; they may wait in its queue"
            )
        }
    };
    format!("\nTHE LATEST {what}\n\n{}", relayed_lines(incident))
}

pub(super) fn relayed_lines(incident: &Incident) -> String {
    let mut text = String::new();
    for message in &incident.relayed {
        let id = message.message_id.as_deref().map_or_else(String::new, |id| format!("  {}", shown(id)));
        text += &format!("{}  {}{id}\n", moment(message.at), shown(&message.reply));
    }
    text
}
