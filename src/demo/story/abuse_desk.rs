//! The abuse desk's mail, in full.

use std::io::Write;

use memchr::memmem;

use super::cast::{ABUSE_DESK, CARL};
use super::thief::Raid;
use super::{Scene, check};
use crate::demo::DemoError;
use crate::demo::practice::Letter;

/// The notice arrives through the same mail server.
pub(super) async fn is_told<W: Write>(scene: &mut Scene<'_, W>, raid: &Raid) -> Result<(), DemoError> {
    scene.narrator.chapter("5. The abuse desk is told")?;
    let of_block = |letter: &Letter| {
        let subject = letter.field("Subject").unwrap_or_default();
        letter.is_to(ABUSE_DESK) && subject.starts_with("Blocked: ")
    };
    let letter = scene.letter("the notice", of_block).await?;
    let text = readable(&letter)?;
    scene
        .narrator
        .say(&format!("Those who look after such things have a second mail at {ABUSE_DESK}, whole:"))?;
    scene.narrator.pause()?;
    scene.narrator.quote(&text)?;
    let account = format!("user:{}", CARL.name);
    for expected in [&account, &raid.crossing, &raid.last_relayed, "quarantine list", "unblock"] {
        check(&format!("whether the notice names `{expected}`"), &text.contains(expected), &true)?;
    }
    check(
        "how many notices there are",
        &scene.stage.practice.letters().count(|letter| letter.is_to(ABUSE_DESK)),
        &2,
    )
}

/// The header section unchanged, the body without its transfer encoding.
fn readable(letter: &Letter) -> Result<String, DemoError> {
    let odd = |error: mailparse::MailParseError| {
        DemoError::Deviation(format!("the notice does not parse: {error}"))
    };
    let parsed = mailparse::parse_mail(&letter.content).map_err(odd)?;
    let body = match parsed.subparts.first() {
        Some(text) => text.get_body(),
        None => parsed.get_body(),
    };
    let end = memmem::find(&letter.content, b"\r\n\r\n").map_or(letter.content.len(), |at| at + 4);
    let header = letter.content.get(..end).unwrap_or_default();
    Ok(String::from_utf8_lossy(header).into_owned() + &body.map_err(odd)?)
}
