//! `gatepost quarantine list`: parked messages, oldest first.

use super::account::as_filed;
use super::gate::Gate;
use super::output::Failed;
use super::table::{Table, column};
use super::text::{moment, size};
use super::{Format, time};
use crate::account::Account;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::control::api::{Answer, Entry, Request};
use crate::quarantine::envelope::State;
use crate::quarantine::spool::Filter;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only those of this account: NAME, user:NAME or host:ADDRESS
    #[arg(long)]
    account: Option<Account>,
    /// Only those whose sender has this in it
    #[arg(long, value_name = "PART")]
    sender: Option<String>,
    /// Only those whose subject has this in it
    #[arg(long, value_name = "PART")]
    subject: Option<String>,
    /// Only those parked since then: 2026-11-24T16:05:28Z, or a duration ago such as 2h
    #[arg(long, value_name = "TIME", value_parser = time::since)]
    since: Option<Timestamp>,
    /// At most so many, the oldest
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    format: Format,
}

pub(super) async fn run(arguments: Arguments, config: &Config) -> Result<(), Failed> {
    let Arguments { account, sender, subject, since, limit, format } = arguments;
    let account = account.map(|account| as_filed(account, config));
    let mut output = format.output();
    let mut gate = Gate::open_to_look(config, &mut output).await?;
    let asked_for_all = account.is_none() && sender.is_none() && subject.is_none() && since.is_none();
    let filter = Filter { account, sender, subject, since };
    let mut replies = gate.ask(Request::List { filter, limit }).await?;
    let mut table = Table::new([
        column("ID", 1, 26, 26),
        column("TIME", 4, 20, 20),
        column("ACCOUNT", 2, 12, 30),
        column("SENDER", 8, 14, 30),
        column("RECIPIENTS", 6, 16, 36),
        column("SIZE", 9, 9, 10),
        column("STATE", 7, 10, 10),
        column("DUE", 5, 20, 20),
        column("SUBJECT", 3, 16, 50),
    ]);
    while let Some(answer) = replies.next().await {
        let Answer::Entry(entry) = answer else { continue };
        if output.is_json() {
            output.object(&entry)?;
        } else {
            table.row(&mut output, row(entry))?;
        }
    }
    if !table.finish(&mut output)? && !output.is_json() && replies.verdict().is_ok() && limit != Some(0) {
        output.line(if asked_for_all {
            "The quarantine is empty."
        } else {
            "No such message is in the quarantine."
        })?;
    }
    gate.close().await;
    output.end()?;
    replies.verdict()
}

fn row(entry: Entry) -> [String; 9] {
    let subject = match (entry.subject, entry.state) {
        (Some(subject), _) => subject,
        (None, State::Unreadable) => entry.reason,
        (None, _) => String::new(),
    };
    [
        entry.id.to_string(),
        moment(entry.time),
        entry.account.map(|account| account.to_string()).unwrap_or_default(),
        entry.sender.map(|sender| format!("<{sender}>")).unwrap_or_default(),
        match entry.recipients.as_slice() {
            [] => String::new(),
            [only] => only.clone(),
            [first, others @ ..] => format!("{first} +{}", others.len()),
        },
        size(entry.size),
        entry.state.as_str().to_owned(),
        entry.due.map(moment).unwrap_or_default(),
        subject,
    ]
}
