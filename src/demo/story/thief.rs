//! The thief: works through his list, is soon held back, and goes on to the hundredth dead address and beyond without
//! noticing.

use std::io::Write;

use super::cast::{self, ABUSE_DESK, CARL, Harvested};
use super::{Scene, check, queue_id};
use crate::demo::DemoError;
use crate::demo::client::{Client, Security};
use crate::smtp::Reply;

/// How many messages there are between two lines of the table.
const MESSAGES_PER_LINE: usize = 5;
const HEADING: &str = "  asked    alive    dead    on Carl's account";

/// The result of the raid.
pub(super) struct Raid {
    /// The thief's connection, still open.
    pub(super) client: Client,
    /// How many messages the mail server accepted before the alarm.
    pub(super) relayed: usize,
    /// How many messages were parked.
    pub(super) parked: usize,
    /// The hundredth dead address.
    pub(super) crossing: String,
    /// The mail server's queue id of the last message before the alarm.
    pub(super) last_relayed: String,
}

/// What the thief's program has seen so far.
#[derive(Default)]
struct Tally {
    asked: usize,
    living: usize,
    dead: u32,
    /// Whether his messages are held back already.
    alarmed: bool,
    crossing: Option<Crossing>,
    relayed: usize,
    /// Messages that were held back, and those of the blocked account.
    parked: usize,
    /// Existing addresses in the messages that were relayed.
    reached: usize,
    before: Replies,
    after: Replies,
}

/// The address that reached the limit.
#[derive(Clone)]
struct Crossing {
    address: String,
    /// Its number among all addresses.
    number: usize,
}

/// The last replies of each kind.
#[derive(Default)]
struct Replies {
    living: String,
    dead: String,
    end: String,
}

/// Sends the whole list.
pub(super) async fn raid<W: Write>(scene: &mut Scene<'_, W>) -> Result<Raid, DemoError> {
    let list = cast::harvested();
    let addresses = list.iter().map(Vec::len).sum::<usize>();
    let living = list.iter().flatten().filter(|one| one.living).count();
    let limit = scene.stage.parts.config.policy.invalid_recipients;
    scene.narrator.chapter("2. A stolen password")?;
    scene.narrator.say(&format!(
        "Somebody has got hold of Carl's password. He logs in as Carl and sends to the first {addresses} addresses of a
        list that was harvested years ago, a dozen with each message. A third of them are dead; nobody knows which.",
    ))?;
    scene.narrator.line(HEADING)?;
    let mut client = Client::log_in(&scene.stage.access(Security::Implicit), &CARL).await?;
    let mut tally = Tally::default();
    for (number, message) in list.iter().enumerate() {
        let (was_calm, was_open) = (!tally.alarmed, tally.crossing.is_none());
        send(scene, &mut client, message, &mut tally, limit).await?;
        match &tally.crossing {
            Some(crossing) if was_open => tell_block(scene, &tally, crossing, limit).await?,
            None if was_calm && tally.alarmed => tell_alarm(scene, &tally, limit).await?,
            None if (number + 1) % MESSAGES_PER_LINE == 0 => tell_progress(scene, &tally, limit).await?,
            _ => {}
        }
    }
    check("mails of the thief's that arrived", &scene.arrived_from(&CARL), &tally.relayed)?;
    let Some(crossing) = tally.crossing.clone() else {
        return Err(DemoError::Deviation("the thief's list ended before the block".to_owned()));
    };
    tell_rest(scene, &tally, list.len(), living)?;
    let last_relayed = queue_id(&tally.before.end)?.to_owned();
    Ok(Raid {
        client,
        relayed: tally.relayed,
        parked: tally.parked,
        crossing: crossing.address,
        last_relayed,
    })
}

/// Sends one of his messages.
async fn send<W: Write>(
    scene: &Scene<'_, W>,
    client: &mut Client,
    message: &[Harvested],
    tally: &mut Tally,
    limit: u32,
) -> Result<(), DemoError> {
    let mail = cast::bait(tally.relayed + tally.parked + 1, message);
    client.mail(mail.from).await?;
    for harvested in message {
        let reply = client.rcpt(&harvested.address).await?;
        tally.answered(harvested, &reply, limit)?;
    }
    let record = scene.record(CARL.name).await?;
    tally.alarmed |= record.is_some_and(|record| record.probation.is_some());
    let end = client.data(&mail.content()).await?;
    check("the reply to the end of the thief's message", &end.code, &250)?;
    if tally.crossing.is_some() {
        tally.parked += 1;
        tally.after.end = end.to_string();
    } else if tally.alarmed {
        tally.parked += 1;
    } else {
        tally.relayed += 1;
        tally.reached += message.iter().filter(|one| one.living).count();
        tally.before.end = end.to_string();
    }
    Ok(())
}

impl Tally {
    fn answered(&mut self, harvested: &Harvested, reply: &Reply, limit: u32) -> Result<(), DemoError> {
        if self.crossing.is_none() {
            self.asked += 1;
            self.living += usize::from(harvested.living);
            self.dead += u32::from(!harvested.living);
            if self.dead == limit {
                self.crossing = Some(Crossing { address: harvested.address.clone(), number: self.asked });
            }
        }
        let blocked = self.crossing.is_some();
        let expected = if harvested.living || blocked { 250 } else { 550 };
        check(&format!("the reply to {}", harvested.address), &reply.code, &expected)?;
        let replies = if blocked { &mut self.after } else { &mut self.before };
        let last = if harvested.living { &mut replies.living } else { &mut replies.dead };
        *last = reply.to_string();
        Ok(())
    }

    fn line(&self, state: &str) -> String {
        format!("{:>7}  {:>7}  {:>6}    {state}", self.asked, self.living, self.dead)
    }
}

async fn tell_progress<W: Write>(
    scene: &mut Scene<'_, W>,
    tally: &Tally,
    limit: u32,
) -> Result<(), DemoError> {
    let count = scene.count(CARL.name).await?;
    check("Carl's count", &count, &tally.dead)?;
    Ok(scene.narrator.line(&tally.line(&format!("{count} of {limit}")))?)
}

async fn tell_alarm<W: Write>(scene: &mut Scene<'_, W>, tally: &Tally, limit: u32) -> Result<(), DemoError> {
    let count = scene.count(CARL.name).await?;
    scene.narrator.line(&tally.line(&format!("{count} of {limit}: on probation")))?;
    scene.narrator.chapter("3. An alarm")?;
    let minutes = scene.stage.parts.config.policy.detection.delay.as_secs() / 60;
    scene.narrator.say(&format!(
        "After {} addresses, {count} of them dead, Gatepost has seen enough to be suspicious: in honest mail there are not
        so many that do not exist. Carl's account is on probation: what it sends is held back for {minutes} minutes, and then goes
        out by itself, unless the account is blocked by then. His program sees nothing of that, and is told the truth
        about every recipient. Were it all a mistake, nobody would have to do anything.",
        tally.asked
    ))?;
    scene.command(&["status"], "").await?;
    scene.narrator.pause()?;
    scene.narrator.say("The abuse desk has a mail that says so, and the thief goes on:")?;
    scene.narrator.line(HEADING)?;
    scene.letter("the first notice", |letter| letter.is_to(ABUSE_DESK)).await?;
    Ok(())
}

async fn tell_block<W: Write>(
    scene: &mut Scene<'_, W>,
    tally: &Tally,
    crossing: &Crossing,
    limit: u32,
) -> Result<(), DemoError> {
    let blocked = scene.record(CARL.name).await?.is_some_and(|record| record.block.is_some());
    check("whether Carl's account is blocked", &blocked, &true)?;
    scene.narrator.line(&tally.line(&format!("{limit} of {limit}: blocked")))?;
    scene.narrator.chapter("4. The hundredth")?;
    scene.narrator.say(&format!(
        "<{}> is the {}th address that the thief asks for, and the {limit}th that does not exist. The block is written
        to disk, and only then is his program answered: 250, all is well. From now on it is told so every time, and the
        mail server hears no more of him.",
        crossing.address, crossing.number
    ))?;
    Ok(())
}

fn tell_rest<W: Write>(
    scene: &mut Scene<'_, W>,
    tally: &Tally,
    messages: usize,
    living: usize,
) -> Result<(), DemoError> {
    scene.narrator.pause()?;
    let row = |what: &str, before: &str, after: &str| format!("{what:<18}{before:<38}{after}");
    let dead = tally.before.dead.split(' ').take(2).collect::<Vec<_>>().join(" ") + " ... User unknown ...";
    let rows = [
        row("his program sees", "before the block", "after it"),
        row("a living address", &tally.before.living, &tally.after.living),
        row("a dead address", &dead, &tally.after.dead),
        row("the message", &tally.before.end, &tally.after.end),
    ];
    for row in rows {
        scene.narrator.line(&row)?;
    }
    check("the reply to a living address", &tally.after.living, &tally.before.living)?;
    check("the reply to a dead address", &tally.after.dead, &tally.after.living)?;
    let shape = |reply: &str| queue_id(reply).map(|id| reply.replace(id, &"0".repeat(id.len())));
    check("the form of the last reply", &shape(&tally.after.end)?, &shape(&tally.before.end)?)?;
    scene.narrator.pause()?;
    scene.narrator.say(&format!(
        "He sends on to the end of his {messages} messages. The mail server has taken {} of them, to {} living people; {}
        are put aside, those that were held back among them: a block keeps them. Without Gatepost all {living} would have been reached, and then those of the next list: real ones
        have millions of addresses. (He could notice that his list has suddenly come to life. Programs that send spam do
        not look.)",
        tally.relayed, tally.reached, tally.parked
    ))?;
    Ok(())
}
