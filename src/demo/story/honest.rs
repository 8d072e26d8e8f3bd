//! Honest people: Anna mistypes an address and goes on undisturbed; Carl's own mail waits beside the thief's.

use std::io::Write;

use super::cast::{self, ANNA, CARL, MEANT, TYPO};
use super::{Scene, check, queue_id};
use crate::demo::DemoError;
use crate::demo::client::{Client, Security, Sent};

/// A typing error is refused at once and counted, with no further consequence.
pub(super) async fn a_typo<W: Write>(scene: &mut Scene<'_, W>) -> Result<(), DemoError> {
    scene.narrator.chapter("1. An honest mistake")?;
    scene.narrator.say(
        "Anna writes to three people and mistypes one address. This is what her mail program is told, at once and in the
        mail server's own words:",
    )?;
    let mail = cast::choir_practice();
    let mut client = Client::log_in(&scene.stage.access(Security::StartTls), &ANNA).await?;
    let sent = client.send(&mail).await?;
    for (recipient, reply) in mail.to.iter().zip(&sent.recipients) {
        scene.narrator.entry(&format!("to {recipient}"), &reply.to_string())?;
        let expected = if recipient == TYPO { 550 } else { 250 };
        check(&format!("the reply to {recipient}"), &reply.code, &expected)?;
    }
    let end = end_of(&sent)?;
    scene.narrator.entry("the message", &end)?;
    let letter = scene.letter("Anna's mail", |letter| letter.is_to("bea@example.org")).await?;
    check("Anna's queue id", &letter.queue_id.as_str(), &queue_id(&end)?)?;
    check(
        "the recipients of Anna's mail",
        &letter.recipients.join(" "),
        &"bea@example.org tom@example.net".to_owned(),
    )?;
    check("who had logged in", &letter.login.as_deref().unwrap_or("nobody"), &ANNA.name)?;

    let again = client.send(&cast::choir_practice_again()).await?;
    scene.letter("Anna's second mail", |letter| letter.is_to(MEANT)).await?;
    check(
        "the reply to the corrected address",
        &again.recipients.first().map_or(0, |reply| reply.code),
        &250,
    )?;
    client.quit().await?;
    check("Anna's count", &scene.count(ANNA.name).await?, &1)?;
    scene.narrator.pause()?;
    scene.narrator.say(
        "The mail went to the other two, and, once she has corrected the address, to Dora as well. One address that does
        not exist stands on Anna's account now, of the 100 that it may have in an hour. She will never notice:",
    )?;
    scene.command(&["status"], "").await?;
    Ok(())
}

/// Anna's mail is relayed while Carl's account is blocked.
pub(super) async fn goes_on<W: Write>(scene: &mut Scene<'_, W>) -> Result<(), DemoError> {
    scene.narrator.chapter("6. Nobody else notices")?;
    let mut client = Client::log_in(&scene.stage.access(Security::StartTls), &ANNA).await?;
    let sent = client.send(&cast::choir_practice_again()).await?;
    client.quit().await?;
    let end = end_of(&sent)?;
    let arrived = scene.stage.practice.letters().find(|letter| end.ends_with(&letter.queue_id));
    check("whether Anna's third mail arrived", &arrived.is_some(), &true)?;
    scene.narrator.say("Anna sends on. Her mail goes straight to the mail server, as ever:")?;
    scene.narrator.entry("Anna's mail", &end)?;
    Ok(())
}

/// Carl himself sends a mail from his blocked account; returns the queue id that he was told.
pub(super) async fn is_parked_too<W: Write>(scene: &mut Scene<'_, W>) -> Result<String, DemoError> {
    let mut client = Client::log_in(&scene.stage.access(Security::StartTls), &CARL).await?;
    let before = scene.arrived_from(&CARL);
    let sent = client.send(&cast::invoice()).await?;
    client.quit().await?;
    let end = end_of(&sent)?;
    check("mails of Carl's that arrived", &scene.arrived_from(&CARL), &before)?;
    scene.narrator.pause()?;
    scene.narrator.say(
        "The real Carl knows nothing of all this, and sends an invoice. His account is blocked, whoever uses it: his mail
        is put aside with the thief's. It is not lost, and his mail program has no reason to send it twice:",
    )?;
    scene.narrator.entry("Carl's mail", &end)?;
    Ok(queue_id(&end)?.to_owned())
}

/// The reply to the end of the message.
pub(super) fn end_of(sent: &Sent) -> Result<String, DemoError> {
    let Some(end) = &sent.end else {
        return Err(DemoError::Deviation("no recipient of an honest mail was taken".to_owned()));
    };
    check("the reply to the end of an honest mail", &end.code, &250)?;
    Ok(end.to_string())
}
