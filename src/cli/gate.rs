//! Where a command is performed: in a running `serve`, or in this process if none runs.

use super::local::Local;
use super::output::{self, Failed, Output};
use crate::config::Config;
use crate::control::Actor;
use crate::control::api::{Answer, Part, Purpose, Request};
use crate::control::client::Client;
use crate::control::operations::{Answers, Octets};

/// A running `serve`, or this process.
pub(super) enum Gate {
    Running(Client),
    Stopped(Box<Local>),
}

/// What a command needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Counts, blocks and the quarantine.
    Records,
    /// Also the upstream, for relaying.
    Upstream,
}

impl Gate {
    /// Connects to the `serve` that runs on the data folder of `config`, or opens the data itself.
    pub(super) async fn open(config: &Config, need: Need) -> Result<Self, Failed> {
        match Client::connect(&config.data_dir).await {
            Ok(Some(client)) => Ok(Self::Running(client)),
            Ok(None) => match Local::open(config, need).await {
                Ok(local) => Ok(Self::Stopped(Box::new(local))),
                // A `serve` may have started meanwhile.
                Err(failed) => match Client::connect(&config.data_dir).await {
                    Ok(Some(client)) => Ok(Self::Running(client)),
                    _ => Err(failed),
                },
            },
            Err(why) => Err(Failed::because(why)),
        }
    }

    /// Like [`Self::open`], for a command that only looks: if it keeps others from the data, its output is held back
    /// until the end.
    pub(super) async fn open_to_look(config: &Config, output: &mut Output) -> Result<Self, Failed> {
        let gate = Self::open(config, Need::Records).await?;
        if matches!(gate, Self::Stopped(_)) {
            output.hold_back();
        }
        Ok(gate)
    }

    /// Performs a request.
    pub(super) async fn ask(&mut self, request: Request) -> Result<Replies, Failed> {
        let answers = match self {
            Self::Running(client) => client.perform(&request).await.map_err(Failed::because)?,
            Self::Stopped(local) => local.operations.perform(request, Actor::current()),
        };
        Ok(Replies { answers, failed: false })
    }

    /// Opens a message octet for octet, or its envelope.
    pub(super) async fn message(&mut self, id: &str, part: Part, purpose: Purpose) -> Result<Octets, Failed> {
        match self {
            Self::Running(client) => client.message(id, part, purpose).await,
            Self::Stopped(local) => local.operations.message(id, part, purpose, &Actor::current()).await,
        }
        .map_err(Failed::because)
    }

    /// Writes changes made here to disk.
    pub(super) async fn close(self) {
        let _running = self.let_go().await;
    }

    /// Releases the data for others; what was opened of it can still be read. The connection to a running `serve` is
    /// returned.
    pub(super) async fn let_go(self) -> Option<Client> {
        match self {
            Self::Stopped(local) => {
                local.close().await;
                None
            }
            Self::Running(client) => Some(client),
        }
    }
}

/// The answers to one request. Warnings and failures go to standard error as they arrive.
pub(super) struct Replies {
    answers: Answers,
    failed: bool,
}

impl Replies {
    /// The next answer that is neither a warning nor a failure.
    pub(super) async fn next(&mut self) -> Option<Answer> {
        loop {
            match self.answers.recv().await? {
                Answer::Warning(warning) => output::warn(&warning),
                Answer::Failure(failure) => {
                    self.failed = true;
                    output::complain(&failure);
                }
                answer => return Some(answer),
            }
        }
    }

    /// Fails if anything has failed so far.
    pub(super) fn verdict(&self) -> Result<(), Failed> {
        if self.failed { Err(Failed::Told) } else { Ok(()) }
    }
}
