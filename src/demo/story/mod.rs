//! The story, chapter by chapter. Each tells what happens as it happens, and checks it.

mod abuse_desk;
mod honest;
mod operator;
mod thief;

use std::fmt::Display;
use std::io::Write;
use std::time::Duration;

use super::DemoError;
use super::cast::{self, ANNA, CARL, Person};
use super::client::Broken;
use super::command::Gatepost;
use super::narrator::Narrator;
use super::practice::Letter;
use super::stage::Stage;
use crate::account::Account;
use crate::clock;
use crate::guard::ledger::Record;

/// The longest wait for anything that happens by itself.
const PATIENCE: Duration = Duration::from_secs(15);

/// What every chapter needs.
struct Scene<'a, W> {
    stage: &'a Stage,
    gatepost: &'a Gatepost,
    narrator: &'a mut Narrator<W>,
}

/// Tells the whole story.
///
/// # Errors
/// Something deviated from the story, or the output cannot be written.
pub(super) async fn tell<W: Write>(
    stage: &Stage,
    gatepost: &Gatepost,
    narrator: &mut Narrator<W>,
) -> Result<(), DemoError> {
    let mut scene = Scene { stage, gatepost, narrator };
    introduction(&mut scene)?;
    honest::a_typo(&mut scene).await?;
    let raid = thief::raid(&mut scene).await?;
    abuse_desk::is_told(&mut scene, &raid).await?;
    honest::goes_on(&mut scene).await?;
    let invoice = honest::is_parked_too(&mut scene).await?;
    operator::looks(&mut scene, &raid, &invoice).await?;
    operator::decides(&mut scene, raid, &invoice).await
}

fn introduction<W: Write>(scene: &mut Scene<'_, W>) -> Result<(), DemoError> {
    let Scene { stage, narrator, .. } = scene;
    narrator.chapter("Gatepost: a stolen account is caught")?;
    narrator.say(
        "Much spam is sent through stolen passwords: a thief logs in to a mail server as one of its honest users, and
        sends to a list of addresses that were collected years ago. Such lists are full of addresses that no longer
        exist. Honest people mistype one now and then.",
    )?;
    narrator.pause()?;
    narrator.say(
        "Gatepost stands in front of the mail server. While the sender waits it asks the server about every recipient,
        and counts for each account those that do not exist. Where their share is that of a stolen list it holds the
        account's mail back for half an hour, to be on the safe side. The 100th within an hour blocks the account: what it
        sends is put aside, without telling the sender, until somebody has looked at it.",
    )?;
    narrator.pause()?;
    narrator.say("This runs now, on this machine alone:")?;
    narrator.line(&format!("Gatepost               {} (STARTTLS, as on port 587)", stage.starttls))?;
    narrator.line(&format!("                       {} (TLS, as on port 465)", stage.implicit))?;
    narrator.line(&format!(
        "practice mail server   {} (in place of your Postfix or Exim)",
        stage.practice.address()
    ))?;
    narrator.line(&format!("accounts               {} and {}", ANNA.name, CARL.name))?;
    narrator.line(&format!("files, log             {} (removed at the end)", stage.folder().display()))?;
    narrator.pause()?;
    narrator.say(&format!(
        "Lines that begin with $ are real commands, and below them is what they print. To try them from another terminal
        while the demo runs: cd {}",
        stage.folder().display()
    ))?;
    Ok(())
}

impl<W: Write> Scene<'_, W> {
    /// Runs a command and shows it with its output.
    async fn command(&mut self, arguments: &[&str], input: &str) -> Result<String, DemoError> {
        self.narrator.command(&format!("gatepost {}", arguments.join(" ")))?;
        let printed = self.gatepost.run(arguments, input).await?;
        self.narrator.output(&printed)?;
        Ok(printed)
    }

    /// The ledger's record of an account.
    async fn record(&self, name: &str) -> Result<Option<Record>, DemoError> {
        Ok(self.stage.parts.ledger.record(&account(name)?, clock::now()).await)
    }

    /// The number of invalid recipients in an account's window.
    async fn count(&self, name: &str) -> Result<u32, DemoError> {
        Ok(self.record(name).await?.map_or(0, |record| record.invalid_recipients))
    }

    /// How many mails from this person's address have arrived so far.
    fn arrived_from(&self, person: &Person) -> usize {
        self.stage.practice.letters().count(|letter| letter.reverse_path == person.address)
    }

    /// Waits for a mail.
    async fn letter(&self, what: &str, wanted: impl Fn(&Letter) -> bool) -> Result<Letter, DemoError> {
        let found = self.stage.practice.letters().wait_for(PATIENCE, wanted).await;
        found.ok_or_else(|| DemoError::Deviation(format!("{what} did not arrive at the practice MTA")))
    }
}

fn account(name: &str) -> Result<Account, DemoError> {
    Account::user(name).map_err(|error| DemoError::Deviation(error.to_string()))
}

/// Checks that the story is true.
fn check<T: PartialEq + Display + ?Sized>(what: &str, found: &T, expected: &T) -> Result<(), DemoError> {
    if found == expected {
        Ok(())
    } else {
        Err(DemoError::Deviation(format!("{what}: expected {expected}, found {found}")))
    }
}

/// The queue id in a reply such as `250 2.0.0 Ok: queued as 4F1A2B3C4D`.
fn queue_id(text: &str) -> Result<&str, DemoError> {
    let id = text.rsplit_once("queued as ").map(|(_, id)| id);
    id.ok_or_else(|| DemoError::Deviation(format!("no queue id in `{text}`")))
}

impl From<Broken> for DemoError {
    fn from(broken: Broken) -> Self {
        Self::Deviation(broken.to_string())
    }
}
