//! `gatepost quarantine delete`: permanently removes messages.

use super::Format;
use super::gate::{Gate, Need};
use super::output::{self, Failed};
use super::quarantine::{none_in, selection};
use crate::account::Account;
use crate::config::Config;
use crate::control::api::{Answer, Request};

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true)))]
pub(super) struct Arguments {
    /// Ids, or the queue ids that the clients were told
    #[arg(value_name = "ID", group = "which")]
    ids: Vec<String>,
    /// All messages of this account: NAME, user:NAME or host:ADDRESS
    #[arg(long, group = "which")]
    account: Option<Account>,
    #[command(flatten)]
    format: Format,
}

pub(super) async fn run(arguments: Arguments, config: &Config) -> Result<(), Failed> {
    let mut output = arguments.format.output().going_on();
    let which = selection(arguments.ids, arguments.account, config);
    let mut none = none_in(&which);
    let mut gate = Gate::open(config, Need::Records).await?;
    let mut replies = gate.ask(Request::Delete { which }).await?;
    while let Some(answer) = replies.next().await {
        let Answer::Deleted(deleted) = answer else { continue };
        none = None;
        if output.is_json() {
            output.object(&deleted)?;
        } else {
            output.line(&format!("{}: deleted", deleted.id))?;
        }
    }
    gate.close().await;
    replies.verdict()?;
    if let Some(none) = none.filter(|_| !output.is_json()) {
        output::warn(&none);
    }
    output.end()
}
