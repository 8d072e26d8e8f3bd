//! What the reader gets after the story: the exact commands to try it by hand, and what the practice MTA then sees.

use std::io::{self, Write};

use super::DemoError;
use super::cast::{ANNA, CARL_AGAIN};
use super::command::{Gatepost, quoted};
use super::narrator::Narrator;
use super::stage::Stage;

/// The end of `demo --exit`.
pub(super) fn farewell<W: Write>(narrator: &mut Narrator<W>) -> io::Result<()> {
    narrator.chapter("The end")?;
    narrator.say(
        "Everything was as told. Without --exit the demo would now stay up, and print the lines with which to try it by
        hand.",
    )
}

/// Prints the commands.
pub(super) fn hand_out<W: Write>(
    stage: &Stage,
    gatepost: &Gatepost,
    narrator: &mut Narrator<W>,
) -> io::Result<()> {
    narrator.chapter("10. Your turn")?;
    narrator.say("All of this is still up. Copy any of these lines into another terminal.")?;
    by_client(stage, narrator)?;
    narrator.pause()?;
    narrator.say("What an operator does (ID is one of the list):")?;
    let prefix = gatepost.prefix();
    for command in [
        "status",
        "quarantine list",
        "quarantine show ID",
        "quarantine release ID",
        "unblock anna",
        "check",
        "--help",
    ] {
        narrator.line(&format!("{prefix} {command}"))?;
    }
    narrator.pause()?;
    narrator.say("The accounts:")?;
    for person in [ANNA, CARL_AGAIN] {
        narrator.line(&format!(
            "user {}   password {:<20} address {}",
            person.name, person.password, person.address
        ))?;
    }
    narrator.pause()?;
    narrator.say(&format!(
        "Any mail program will do, too: server 127.0.0.1, port {} with STARTTLS or {} with TLS; its certificate is {}.
        The log is {}.",
        stage.starttls.port(),
        stage.implicit.port(),
        stage.certificate().display(),
        stage.log_file().display(),
    ))?;
    narrator.say(
        "What arrives at the practice mail server is shown below. Ctrl-C ends it and leaves nothing behind.",
    )?;
    narrator.pause()
}

fn by_client<W: Write>(stage: &Stage, narrator: &mut Narrator<W>) -> io::Result<()> {
    let (starttls, implicit) = (stage.starttls.port(), stage.implicit.port());
    let mut lines = |text: &str, lines: &str| {
        narrator.pause()?;
        narrator.say(text)?;
        lines.split('\n').try_for_each(|line| narrator.line(line))
    };
    let swaks = |port: u16, tls: &str, to: &str| {
        format!(
            "swaks --server 127.0.0.1 --port {port} {tls} --from {} --to {to} \\\n    \
             --auth PLAIN --auth-user {} --auth-password {}",
            ANNA.address, ANNA.name, ANNA.password
        )
    };
    let curl = format!(
        "curl --verbose --url smtps://127.0.0.1:{implicit} --cacert {} \\\n    \
         --user {}:{} --mail-from {} --mail-rcpt bea@example.org \\\n    --upload-file {}",
        quoted(&stage.certificate()),
        ANNA.name,
        ANNA.password,
        ANNA.address,
        quoted(&stage.sample()),
    );
    lines(
        "A mail that arrives, with STARTTLS as on port 587:",
        &swaks(starttls, "--tls", "bea@example.org"),
    )?;
    lines("The same with curl, with TLS from the start as on port 465:", &curl)?;
    lines("A recipient who does not exist:", &swaks(implicit, "--tls-on-connect", "nobody@example.org"))?;
    lines(
        "A hundred of them. Towards the end the replies change, since Anna is blocked; what she sends next is put aside:",
        &swaks(starttls, "--tls", "$(seq -s, -f nobody%g@example.org 100)"),
    )
}

/// Prints what the practice MTA accepts, until the demo is stopped from outside.
pub(super) async fn stay_up<W: Write>(stage: &Stage, narrator: &mut Narrator<W>) -> Result<(), DemoError> {
    let letters = stage.practice.letters();
    let mut seen = letters.total();
    loop {
        let (letter, total) = letters.next_after(seen).await;
        seen = total;
        let sender =
            letter.login.as_ref().map_or_else(String::new, |login| format!(", logged in as {login}"));
        let subject = letter.field("Subject").unwrap_or_default();
        narrator.output(&format!(
            "arrived {}: from <{}>{sender} to {}: {subject}",
            letter.queue_id,
            letter.reverse_path,
            shown(&letter.recipients)
        ))?;
    }
}

/// The first recipients, and how many more there are.
fn shown(recipients: &[String]) -> String {
    match recipients {
        [first, _, _, rest @ ..] => format!("<{first}> and {} more", rest.len() + 2),
        few => few.iter().map(|recipient| format!("<{recipient}>")).collect::<Vec<_>>().join(", "),
    }
}
