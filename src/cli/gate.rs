//! Where a command is performed: inside a running `serve`, or here where none runs.

use super::local::Local;
use super::output::{self, Failed};
use crate::config::Config;
use crate::control::Actor;
use crate::control::api::{Answer, Part, Purpose, Request};
use crate::control::client::Client;
use crate::control::operations::{Answers, Octets};

/// The one or the other.
pub(super) enum Gate {
    Running(Client),
    Stopped(Box<Local>),
}

/// What the commands of a gate have to be able to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Counts, blocks and the quarantine.
    Records,
    /// Relaying too.
    Upstream,
}

impl Gate {
    /// Finds the `serve` that runs on the data folder of `config`, or opens that itself.
    pub(super) async fn open(config: &Config, need: Need) -> Result<Self, Failed> {
        match Client::connect(&config.data_dir).await {
            Ok(Some(client)) => Ok(Self::Running(client)),
            Ok(None) => Ok(Self::Stopped(Box::new(Local::open(config, need).await?))),
            Err(why) => Err(Failed::because(why)),
        }
    }

    /// Performs a command.
    pub(super) async fn ask(&mut self, request: Request) -> Result<Replies, Failed> {
        let answers = match self {
            Self::Running(client) => client.perform(&request).await.map_err(Failed::because)?,
            Self::Stopped(local) => local.operations.perform(request, Actor::current()),
        };
        Ok(Replies { answers, failed: false })
    }

    /// A message octet for octet, or its envelope.
    pub(super) async fn message(&mut self, id: &str, part: Part, purpose: Purpose) -> Result<Octets, Failed> {
        match self {
            Self::Running(client) => client.message(id, part, purpose).await,
            Self::Stopped(local) => local.operations.message(id, part, purpose, &Actor::current()).await,
        }
        .map_err(Failed::because)
    }

    /// Brings what was changed here to disk.
    pub(super) async fn close(self) {
        if let Self::Stopped(local) = self {
            local.close().await;
        }
    }
}

/// The answers to one command. Warnings and failures go to standard error as they come.
pub(super) struct Replies {
    answers: Answers,
    failed: bool,
}

impl Replies {
    /// The next answer that is neither warning nor failure.
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

    /// Whether anything failed so far.
    pub(super) fn verdict(&self) -> Result<(), Failed> {
        if self.failed { Err(Failed::Told) } else { Ok(()) }
    }
}
