//! `gatepost serve`: the proxy, in the foreground.

use tokio::runtime::Runtime;

use super::output::Failed;
use crate::config::Config;

pub(super) async fn run(config: Config) -> Result<(), Failed> {
    crate::server::serve(config).await.map_err(|error| Failed::because(error.to_string()))
}

/// A runtime that uses all processors.
pub(super) fn runtime() -> Result<Runtime, Failed> {
    Runtime::new().map_err(|error| Failed::because(format!("no runtime: {error}")))
}
