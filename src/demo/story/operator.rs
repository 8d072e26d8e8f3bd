//! The operator: looks into the quarantine, tells Carl's own mail from the thief's, and undoes the harm.

use std::io::Write;

use tokio::time::{Instant, sleep};

use super::cast::{self, CARL, CARL_AGAIN};
use super::honest::end_of;
use super::thief::Raid;
use super::{PATIENCE, Scene, check, queue_id};
use crate::demo::DemoError;
use crate::demo::client::{Client, Security};

/// How often the thief's program sends NOOP.
const NOOP_EVERY: std::time::Duration = std::time::Duration::from_millis(200);

/// Lists the quarantine and shows the one message that differs from the others.
pub(super) async fn looks<W: Write>(
    scene: &mut Scene<'_, W>,
    raid: &Raid,
    invoice: &str,
) -> Result<(), DemoError> {
    scene.narrator.chapter("7. What was put aside")?;
    scene.narrator.say("The notice said how to look:")?;
    let arguments = ["quarantine", "list", "--account", CARL.name];
    scene.narrator.command(&format!("gatepost {}", arguments.join(" ")))?;
    let listed = scene.gatepost.run(&[&arguments[..], &["--json"]].concat(), "").await?;
    let mut subjects = Vec::new();
    scene.narrator.line(&row("ID", "TIME", "RECIPIENTS", "SUBJECT"))?;
    for line in listed.lines() {
        let entry = Entry::read(line)?;
        scene.narrator.line(&row(&entry.id, &entry.time, &entry.recipients, &entry.subject))?;
        subjects.push(entry.subject);
    }
    let bait = subjects.iter().filter(|subject| **subject == cast::BAIT).count();
    check("the thief's messages in the quarantine", &bait, &raid.parked)?;
    check("all messages in the quarantine", &subjects.len(), &(raid.parked + 1))?;
    scene.narrator.pause()?;
    scene.narrator.say(&format!(
        "One is not like the others. A message can also be named by the queue id that its sender was told, which was
        {invoice} for Carl's:"
    ))?;
    let shown = scene.command(&["quarantine", "show", invoice], "").await?;
    let wanted = cast::invoice();
    let names_recipient = wanted.to.iter().all(|recipient| shown.contains(recipient));
    check("whether Carl's invoice is shown", &(shown.contains(wanted.subject) && names_recipient), &true)
}

/// The fields of one line of `quarantine list --json`.
struct Entry {
    id: String,
    time: String,
    recipients: String,
    subject: String,
}

impl Entry {
    fn read(line: &str) -> Result<Self, DemoError> {
        let odd = || DemoError::Deviation(format!("`quarantine list --json` printed: {line}"));
        let object: serde_json::Value = serde_json::from_str(line).map_err(|_| odd())?;
        let text =
            |key| object.get(key).and_then(serde_json::Value::as_str).map(str::to_owned).ok_or_else(odd);
        let recipients = object.get("recipients").and_then(serde_json::Value::as_array).ok_or_else(odd)?;
        let time = text("time")?;
        // The time of day of an RFC 3339 time.
        let time = time.get(11..19).unwrap_or(&time).to_owned();
        Ok(Self {
            id: text("id")?,
            time,
            recipients: recipients.len().to_string(),
            subject: text("subject")?,
        })
    }
}

fn row(id: &str, time: &str, recipients: &str, subject: &str) -> String {
    format!("{id:<28}{time:<10}{recipients:>10}  {subject}")
}

/// Sets a new password, releases the invoice, deletes the rest, lifts the block.
pub(super) async fn decides<W: Write>(
    scene: &mut Scene<'_, W>,
    raid: Raid,
    invoice: &str,
) -> Result<(), DemoError> {
    scene.narrator.chapter("8. An operator decides")?;
    new_password(scene, raid.client).await?;
    release(scene, invoice).await?;
    scene.narrator.pause()?;
    scene.narrator.say("The rest is the thief's, and goes:")?;
    scene.command(&["quarantine", "delete", "--account", CARL.name], "").await?;
    check("what is left in the quarantine", &scene.stage.parts.spool.usage(None).messages, &0)?;
    scene.narrator.pause()?;
    scene.narrator.say("Now the block can be lifted; the account begins at 0 again:")?;
    scene.command(&["unblock", CARL.name], "").await?;
    check("whether anything is left on Carl's account", &scene.record(CARL.name).await?.is_some(), &false)?;
    carl_is_back(scene, raid.relayed).await
}

/// Sets a new password, which ends the sessions of whoever has the old one.
async fn new_password<W: Write>(scene: &mut Scene<'_, W>, mut thief: Client) -> Result<(), DemoError> {
    scene
        .narrator
        .say("A call to Carl: he gets a new password. This also ends every session that used the old one:")?;
    let arguments = ["user", "passwd", CARL.name, "--password-stdin"];
    scene.command(&arguments, &format!("{}\n", CARL_AGAIN.password)).await?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let reply = thief.noop().await?;
        if reply.code == 421 {
            return Ok(scene.narrator.entry("the thief is told", &reply.to_string())?);
        }
        check("the reply to the thief's NOOP", &reply.code, &250)?;
        if Instant::now() >= deadline {
            return Err(DemoError::Deviation("the thief's session did not end".to_owned()));
        }
        sleep(NOOP_EVERY).await;
    }
}

async fn release<W: Write>(scene: &mut Scene<'_, W>, invoice: &str) -> Result<(), DemoError> {
    scene.narrator.pause()?;
    scene.narrator.say("Carl's own mail goes out after all:")?;
    scene.command(&["quarantine", "release", invoice], "").await?;
    let wanted = cast::invoice();
    let letter = scene
        .letter("Carl's invoice", |letter| letter.field("Subject").as_deref() == Some(wanted.subject))
        .await?;
    check(
        "who had sent the invoice",
        &letter.field("X-Authenticated-As").unwrap_or_default(),
        &CARL.name.to_owned(),
    )?;
    check(
        "whether the invoice is as Carl sent it",
        &letter.content.ends_with(wanted.content().as_bytes()),
        &true,
    )?;
    scene.narrator.say(&format!(
        "{} has it, octet for octet as Carl sent it, behind a few lines of Gatepost's own, of which one says who had
        logged in: X-Authenticated-As: {}",
        wanted.to.join(", "),
        CARL.name
    ))?;
    Ok(())
}

async fn carl_is_back<W: Write>(scene: &mut Scene<'_, W>, relayed: usize) -> Result<(), DemoError> {
    let mut client = Client::log_in(&scene.stage.access(Security::StartTls), &CARL_AGAIN).await?;
    let sent = client.send(&cast::thanks()).await?;
    client.quit().await?;
    let end = end_of(&sent)?;
    let id = queue_id(&end)?;
    let letter = scene.letter("Carl's last mail", |letter| letter.queue_id == id).await?;
    check("where Carl's last mail went", &letter.recipients.join(" "), &cast::thanks().to.join(" "))?;
    scene.narrator.entry("Carl's next mail", &end)?;
    scene.narrator.chapter("9. What it came to")?;
    scene.narrator.say(&format!(
        "{relayed} of the thief's messages got out before the alarm; the notice lists their queue ids, so that the
        postmaster can clear those that still wait. Nothing that he sent later left the house. No honest mail
        was lost or refused, and nobody but the thief and the abuse desk had any work.",
    ))?;
    Ok(())
}
