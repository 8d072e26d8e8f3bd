//! `gatepost quarantine release`: relays parked messages.

use super::Format;
use super::gate::{Gate, Need};
use super::output::{self, Failed, Output};
use super::quarantine::{none_in, selection};
use super::text::count;
use crate::account::Account;
use crate::config::Config;
use crate::control::api::{Answer, Answered, Released, Request, Selection};
use crate::quarantine::progress::ReleaseOutcome;

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true)))]
pub(super) struct Arguments {
    /// Ids, or the queue ids that the clients were told
    #[arg(value_name = "ID", group = "which")]
    ids: Vec<String>,
    /// All messages of this account: NAME, user:NAME or host:ADDRESS
    #[arg(long, group = "which")]
    account: Option<Account>,
    /// All messages
    #[arg(long, group = "which")]
    all: bool,
    /// Do not tell the senders which recipients were refused
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    format: Format,
}

pub(super) async fn run(arguments: Arguments, config: &Config) -> Result<(), Failed> {
    let Arguments { ids, account, all, quiet, format } = arguments;
    let mut output = format.output().going_on();
    let which = if all { Selection::All } else { selection(ids, account, config) };
    let none = none_in(&which);
    let mut gate = Gate::open(config, Need::Upstream).await?;
    let mut replies = gate.ask(Request::Release { which, quiet }).await?;
    let mut tally = Tally::default();
    while let Some(answer) = replies.next().await {
        let Answer::Released(released) = answer else { continue };
        tally.add(&released);
        if output.is_json() {
            output.object(&released)?;
        } else {
            tell(&mut output, &released)?;
        }
        // Each takes a while, so whoever watches should see it at once.
        output.flush()?;
    }
    gate.close().await;
    replies.verdict()?;
    if let Some(none) = none.filter(|_| tally.is_empty() && !output.is_json()) {
        output::warn(&none);
    }
    tally.verdict()?;
    output.end()
}

/// How many releases had which outcome.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) released: u64,
    pub(super) releasing: u64,
    pub(super) failed: u64,
}

impl Tally {
    pub(super) fn add(&mut self, released: &Released) {
        match released.outcome {
            ReleaseOutcome::Released => self.released += 1,
            ReleaseOutcome::Releasing => self.releasing += 1,
            ReleaseOutcome::Failed => self.failed += 1,
        }
    }

    fn is_empty(&self) -> bool {
        self.released + self.releasing + self.failed == 0
    }

    /// Succeeds only if all were released.
    pub(super) fn verdict(&self) -> Result<(), Failed> {
        let mut unfinished = Vec::new();
        if self.releasing > 0 {
            unfinished.push(format!(
                "{} put off by the upstream; `serve` goes on trying",
                count(self.releasing, "message")
            ));
        }
        if self.failed > 0 {
            unfinished.push(format!(
                "{} refused for good, and kept; see the replies above, then release again or delete",
                count(self.failed, "message")
            ));
        }
        if unfinished.is_empty() { Ok(()) } else { Err(Failed::because(unfinished.join("; "))) }
    }
}

/// Prints the outcome of one release for people.
pub(super) fn tell(output: &mut Output, released: &Released) -> Result<(), Failed> {
    let outcome = released.outcome.as_str();
    let delivered = u64::try_from(released.delivered.len()).unwrap_or(u64::MAX);
    output.line(&format!("{}: {outcome}, delivered to {}", released.id, count(delivered, "recipient")))?;
    for (what, list) in [("refused", &released.refused), ("put off", &released.deferred)] {
        for Answered { recipient, reply } in list {
            output.line(&format!("    {what}: {recipient}: {reply}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn done_only_if_all_were_released() {
        for (released, releasing, failed, parts) in [
            (3, 0, 0, &[][..]),
            (0, 0, 0, &[]),
            (2, 1, 0, &["1 message put off"]),
            (0, 0, 2, &["2 messages refused"]),
            (1, 2, 1, &["2 messages put off", "1 message refused"]),
        ] {
            let verdict = Tally { released, releasing, failed }.verdict();
            match verdict {
                Ok(()) => assert!(parts.is_empty()),
                Err(Failed::Because(why)) => {
                    assert!(!parts.is_empty() && parts.iter().all(|part| why.contains(part)), "{why}");
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    }
}
