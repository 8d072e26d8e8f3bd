//! `gatepost demo`: the story of a stolen account, played on loopback against the real server.
//!
//! [`practice`] is the MTA behind it; `stage` starts everything in a folder of its own; `story` tells what happens as it
//! happens and holds every step to what it says, so that a run that ends well is a test; `handout` is for the reader's
//! own client. Nothing outside the folder is touched, nothing but the loopback address is listened on.

mod cast;
mod client;
mod command;
mod folder;
mod handout;
mod narrator;
pub mod practice;
mod stage;
mod story;

use std::io;

use tokio::signal::unix::{SignalKind, signal};

use command::Gatepost;
use narrator::Narrator;
use stage::Stage;

/// How much of the log is shown where something went wrong.
const LOG_LINES: usize = 20;

/// Why the demo did not end well.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Something happened that is not in the story.
    #[error("the demo went differently from its story: {0}")]
    Deviation(String),
    /// Something cannot be made or started.
    #[error("the demo cannot start: {what}: {why}")]
    Setup {
        /// What.
        what: String,
        /// Why.
        why: String,
    },
    /// The story cannot be written out.
    #[error("the output cannot be written: {0}")]
    Output(#[from] io::Error),
}

impl DemoError {
    fn setup(what: &str, why: &impl ToString) -> Self {
        Self::Setup { what: what.to_owned(), why: why.to_string() }
    }
}

/// Tells the story to standard output; with `exit` ends after it, else stays up until SIGINT or SIGTERM. Either signal
/// ends it in good order at any time.
///
/// # Errors
/// It cannot start, or anything went differently from the story.
pub async fn run(exit: bool) -> Result<(), DemoError> {
    let listen = |kind| signal(kind).map_err(|error| DemoError::setup("signals", &error));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let play = async {
        let stage = Stage::set().await?;
        let told = tokio::select! {
            biased;
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
            told = Box::pin(tell(&stage, exit)) => told,
        };
        stage.strike().await;
        told
    };
    match Box::pin(play).await {
        // Whoever read it has gone, and so can we.
        Err(DemoError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        played => played,
    }
}

async fn tell(stage: &Stage, exit: bool) -> Result<(), DemoError> {
    let mut narrator = Narrator::to_stdout();
    let gatepost = Gatepost::new(stage.folder(), &stage.config_file())?;
    let told = story::tell(stage, &gatepost, &mut narrator).await;
    if matches!(told, Err(DemoError::Deviation(_))) {
        // It is gone in a moment, and is what shows why.
        show_log(stage, &mut narrator)?;
    }
    told?;
    if exit {
        return Ok(handout::farewell(&mut narrator)?);
    }
    handout::hand_out(stage, &gatepost, &mut narrator)?;
    handout::stay_up(stage, &mut narrator).await
}

fn show_log<W: io::Write>(stage: &Stage, narrator: &mut Narrator<W>) -> io::Result<()> {
    let log = std::fs::read(stage.log_file())?;
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    narrator.chapter("The end of Gatepost's log")?;
    narrator.quote(&lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"))
}
