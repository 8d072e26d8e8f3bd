//! `gatepost block` and `gatepost unblock`: blocking by hand.

use super::Format;
use super::account::as_filed;
use super::gate::{Gate, Need};
use super::output::Failed;
use super::release::{self, Tally};
use super::text::{count, moment};
use crate::account::Account;
use crate::config::{Action, Config};
use crate::control::api::{AccountState, Answer, Changed, Deed, Request};
use crate::visible::shell_word;

#[derive(Debug, clap::Args)]
pub(super) struct BlockArguments {
    /// NAME, user:NAME or host:ADDRESS
    account: Account,
    /// Why; `status` shows it
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, clap::Args)]
pub(super) struct UnblockArguments {
    /// NAME, user:NAME or host:ADDRESS
    account: Account,
    /// Release all of its parked messages too
    #[arg(long)]
    release: bool,
    /// End its open sessions too
    #[arg(long)]
    kick: bool,
    #[command(flatten)]
    format: Format,
}

pub(super) async fn block(arguments: BlockArguments, config: &Config) -> Result<(), Failed> {
    let account = as_filed(arguments.account, config);
    let request = Request::Block { account, reason: arguments.reason };
    change(arguments.format, config, Need::Records, request).await
}

pub(super) async fn unblock(arguments: UnblockArguments, config: &Config) -> Result<(), Failed> {
    let account = as_filed(arguments.account, config);
    let need = if arguments.release { Need::Upstream } else { Need::Records };
    let request = Request::Unblock { account, release: arguments.release, kick: arguments.kick };
    change(arguments.format, config, need, request).await
}

/// Requests a change and prints the outcome. With `--json` this is one object, in which releases appear as numbers.
pub(super) async fn change(
    format: Format,
    config: &Config,
    need: Need,
    request: Request,
) -> Result<(), Failed> {
    let mut output = format.output().going_on();
    let mut gate = Gate::open(config, need).await?;
    let releases = matches!(request, Request::Unblock { release: true, .. });
    let mut replies = gate.ask(request).await?;
    let mut done = None;
    let mut tally = Tally::default();
    while let Some(answer) = replies.next().await {
        match answer {
            Answer::Changed(changed) if output.is_json() => done = Some(changed),
            Answer::Changed(changed) => {
                for line in told(&changed, config.action, releases) {
                    output.line(&line)?;
                }
            }
            Answer::Released(released) => {
                tally.add(&released);
                if !output.is_json() {
                    release::tell(&mut output, &released)?;
                }
            }
            _ => {}
        }
    }
    if let Some(changed) = done {
        output.object(&Report {
            changed,
            released: tally.released,
            releasing: tally.releasing,
            failed: tally.failed,
        })?;
    }
    gate.close().await;
    replies.verdict()?;
    tally.verdict()?;
    output.end()
}

/// What `--json` prints about a change.
#[derive(serde::Serialize)]
struct Report {
    #[serde(flatten)]
    changed: Changed,
    released: u64,
    releasing: u64,
    failed: u64,
}

/// Describes a change for people, one line each; if it `releases` parked messages, those lines follow.
fn told(changed: &Changed, action: Action, releases: bool) -> Vec<String> {
    let account = &changed.account;
    let word = shell_word(account.as_str());
    let sessions = u64::try_from(changed.sessions).unwrap_or(u64::MAX);
    let what = match (changed.done, changed.changed) {
        (Deed::Blocked, true) => {
            let fate = match action {
                Action::Park => "parked",
                Action::Refuse => "refused",
            };
            format!("{account} is blocked: what it sends from now on is {fate}.")
        }
        (Deed::Blocked, false) => format!("{account} was blocked already."),
        (Deed::Unblocked, true) if changed.was == Some(AccountState::Probation) => {
            format!("{account} is no longer on probation, and its invalid recipients are forgotten.")
        }
        (Deed::Unblocked, true) => {
            format!("{account} is no longer blocked, and its invalid recipients are forgotten.")
        }
        (Deed::Unblocked, false) => {
            format!("{account} was not blocked; its invalid recipients are forgotten.")
        }
        (Deed::Kicked, _) => String::new(),
    };
    let whose = if what.is_empty() { account.as_str() } else { "it" };
    let sessions = match (sessions, changed.kicked) {
        (0, _) => format!("No session of {whose} is open."),
        (1, true) => format!("1 open session of {whose} ends at its next command."),
        (number, true) => {
            format!("{} of {whose} end at their next command.", count(number, "open session"))
        }
        (1, false) => format!("It has 1 open session; `gatepost kick {word}` ends it."),
        (number, false) => {
            format!("It has {number} open sessions; `gatepost kick {word}` ends them.")
        }
    };
    let mut lines = vec![format!("{what} {sessions}").trim_start().to_owned()];
    if changed.parked > 0 && changed.done != Deed::Kicked && !releases {
        let verb = if changed.parked == 1 { "is" } else { "are" };
        lines.push(format!(
            "{} of its messages {verb} in the quarantine: gatepost quarantine list --account {word}",
            changed.parked
        ));
        if let Some(last) = changed.last_due.filter(|_| changed.done == Deed::Unblocked) {
            let awaited = match changed.awaited {
                all if all == changed.parked => "These go out by themselves".to_owned(),
                some => format!("Of these {some} go out by themselves"),
            };
            lines.push(format!(
                "{awaited}, the last at {}; at once: gatepost quarantine release --account {word}",
                moment(last)
            ));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn commands_to_copy_name_the_account_as_one_word() {
        let changed = Changed {
            account: "$(reboot)".parse().unwrap(),
            done: Deed::Unblocked,
            changed: true,
            sessions: 1,
            kicked: false,
            parked: 2,
            was: None,
            awaited: 2,
            last_due: Some(Timestamp::from_millis(1_795_536_328_123)),
        };
        let lines = told(&changed, Action::Park, false);
        let commands = [
            "`gatepost kick 'user:$(reboot)'`",
            "gatepost quarantine list --account 'user:$(reboot)'",
            "gatepost quarantine release --account 'user:$(reboot)'",
        ];
        assert_eq!(lines.len(), commands.len());
        for (line, command) in lines.iter().zip(commands) {
            assert!(line.contains(command), "{line}");
        }
        let many = told(&Changed { sessions: 2, ..changed }, Action::Park, false);
        assert!(many[0].contains("2 open sessions; `gatepost kick 'user:$(reboot)'` ends them"), "{many:?}");
    }
}
