//! `gatepost kick`: ends an account's open sessions.

use super::account::as_filed;
use super::gate::Need;
use super::output::Failed;
use super::{Format, block};
use crate::account::Account;
use crate::config::Config;
use crate::control::api::Request;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// NAME, user:NAME or host:ADDRESS
    account: Account,
    #[command(flatten)]
    format: Format,
}

pub(super) async fn run(arguments: Arguments, config: &Config) -> Result<(), Failed> {
    let account = as_filed(arguments.account, config);
    block::change(arguments.format, config, Need::Records, Request::Kick { account }).await
}
