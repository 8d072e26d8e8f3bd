//! `gatepost demo`: the story of a stolen account, played on loopback against the real server.
//!
//! [`practice`] is the MTA behind it; `stage` starts everything in a folder of its own; `story` tells what happens and
//! checks each step, so that a successful run is a test; `handout` is for the reader's own client. Nothing outside the
//! folder is touched, and only the loopback address is listened on.

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

/// How many lines of the log are shown after a failure.
const LOG_LINES: usize = 20;

/// Why the demo failed.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Something happened that is not in the story.
    #[error("the demo went differently from its story: {0}")]
    Deviation(String),
    /// Something could not be created or started.
    #[error("the demo cannot start: {what}: {why}")]
    Setup {
        /// What it was.
        what: String,
        /// The reason.
        why: String,
    },
    /// The story cannot be printed.
    #[error("the output cannot be written: {0}")]
    Output(#[from] io::Error),
}

impl DemoError {
    fn setup(what: &str, why: &impl ToString) -> Self {
        Self::Setup { what: what.to_owned(), why: why.to_string() }
    }
}

/// Tells the story on standard output. With `exit` it ends afterwards, otherwise it runs until SIGINT or SIGTERM.
/// Either signal ends it in good order at any time.
///
/// # Errors
/// It cannot start, or something deviated from the story.
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
        // The reader of the output is gone, so there is no reason to go on.
        Err(DemoError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        played => played,
    }
}

async fn tell(stage: &Stage, exit: bool) -> Result<(), DemoError> {
    let mut narrator = Narrator::to_stdout();
    let gatepost = Gatepost::new(stage.folder(), &stage.config_file())?;
    let told = story::tell(stage, &gatepost, &mut narrator).await;
    if matches!(told, Err(DemoError::Deviation(_))) {
        // Shown now, since it is about to be removed and explains the failure.
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
