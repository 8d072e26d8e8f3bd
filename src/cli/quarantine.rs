//! `gatepost quarantine`: the commands for parked messages.

use super::output::Failed;
use super::{delete, export, list, release, show};
use crate::account::Account;
use crate::config::Config;
use crate::control::api::Selection;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Parked messages, oldest first
    List(list::Arguments),
    /// One message: envelope and a safe preview, or octet for octet
    Show(show::Arguments),
    /// Relay messages after all
    Release(release::Arguments),
    /// Remove messages for good
    Delete(delete::Arguments),
    /// Write messages and their envelopes to a folder, with checksums, as evidence
    Export(export::Arguments),
}

pub(super) async fn run(command: Command, config: &Config) -> Result<(), Failed> {
    match command {
        Command::List(arguments) => list::run(arguments, config).await,
        Command::Show(arguments) => show::run(&arguments, config).await,
        Command::Release(arguments) => release::run(arguments, config).await,
        Command::Delete(arguments) => delete::run(arguments, config).await,
        Command::Export(arguments) => export::run(&arguments, config).await,
    }
}

/// What is said, on standard error, of a selection that has no message; nothing of ids, each of which fails by itself.
pub(super) fn none_in(which: &Selection) -> Option<String> {
    match which {
        Selection::Ids(_) => None,
        Selection::Account(account) => Some(format!("{account} has no message in the quarantine")),
        Selection::All => Some("there is no message in the quarantine".to_owned()),
    }
}

/// The messages that ids or `--account` select; clap ensures that exactly one of them is given.
pub(super) fn selection(ids: Vec<String>, account: Option<Account>, config: &Config) -> Selection {
    match account {
        Some(account) => Selection::Account(super::account::as_filed(account, config)),
        None => Selection::Ids(ids),
    }
}
