//! `gatepost status`: accounts with an invalid recipient in the window, on probation, or blocked.

use super::Format;
use super::gate::{Gate, Need};
use super::output::Failed;
use super::table::{Table, column};
use super::text::moment;
use crate::config::{Config, units};
use crate::control::api::{AccountState, AccountStatus, Answer, Request};
use crate::guard::ledger::BlockedBy;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    format: Format,
}

pub(super) async fn run(arguments: &Arguments, config: &Config) -> Result<(), Failed> {
    let mut output = arguments.format.output();
    let mut gate = Gate::open(config, Need::Records).await?;
    let mut replies = gate.ask(Request::Status).await?;
    let mut table = Table::new([
        column("ACCOUNT", 1, 20, 40),
        column("STATE", 2, 9, 9),
        column("INVALID", 3, 17, 24),
        column("FIRST", 10, 20, 20),
        column("LAST", 5, 20, 20),
        column("PARKED", 4, 6, 8),
        column("SESSIONS", 8, 8, 8),
        column("BLOCKED", 7, 33, 33),
        column("PROBATION", 6, 26, 26),
        column("REASON", 9, 12, 50),
    ]);
    while let Some(answer) = replies.next().await {
        let Answer::Account(status) = answer else { continue };
        if output.is_json() {
            output.object(&status)?;
        } else {
            table.row(&mut output, row(status))?;
        }
    }
    if !table.finish(&mut output)? && !output.is_json() && replies.verdict().is_ok() {
        output.line("No account has an invalid recipient in the window, and none is blocked.")?;
    }
    output.flush()?;
    gate.close().await;
    replies.verdict()
}

fn row(status: AccountStatus) -> [String; 10] {
    let time = |time: Option<_>| time.map(moment).unwrap_or_default();
    let by = match status.blocked_by {
        Some(BlockedBy::Limit) => "by the limit ",
        Some(BlockedBy::Operator) => "by hand ",
        Some(BlockedBy::Detection) => "by detection ",
        None => "",
    };
    let period = units::show_duration(std::time::Duration::from_secs(status.period_seconds));
    [
        status.account.to_string(),
        match status.state {
            AccountState::Counting => "counting".to_owned(),
            AccountState::Probation => "probation".to_owned(),
            AccountState::Blocked => "blocked".to_owned(),
        },
        format!("{} of {} in {period}", status.invalid_recipients, status.limit),
        time(status.first),
        time(status.last),
        status.parked.to_string(),
        status.sessions.to_string(),
        format!("{by}{}", time(status.blocked_at)),
        status.probation_until.map(|until| format!("until {}", moment(until))).unwrap_or_default(),
        status.reason.unwrap_or_default(),
    ]
}
