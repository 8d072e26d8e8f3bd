//! `gatepost demo`: the story on loopback.

use super::output::Failed;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// End after the story instead of staying up for your own client
    #[arg(long)]
    exit: bool,
}

pub(super) async fn run(arguments: &Arguments) -> Result<(), Failed> {
    crate::demo::run(arguments.exit).await.map_err(|error| Failed::because(error.to_string()))
}
