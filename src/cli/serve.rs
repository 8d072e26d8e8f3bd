//! `gatepost serve`: the proxy, in the foreground.

use std::io::{IsTerminal, Stderr, stderr};

use tokio::runtime::Runtime;
use tracing_subscriber::EnvFilter;

use super::output::Failed;
use crate::config::{Config, Log, LogFormat, LogLevel};
use crate::maillog;
use crate::maillog::batches::Batches;
use crate::maillog::json::JsonLines;
use crate::maillog::patient::Patient;
use crate::server::process;

/// Runs on the main thread while it is the only one; the runtime is created after what requires that.
pub(super) fn run(config: Config) -> Result<(), Failed> {
    let log = start_log(&config.log);
    log_panics();
    let ready = process::ready(&config).map_err(|error| Failed::because(error.to_string()))?;
    let runtime = runtime()?;
    let _batching = log.batch().inspect_err(maillog::not_batched).ok();
    let done = runtime.block_on(crate::server::serve(config, ready));
    // Pending disk operations must not keep the process from ending.
    runtime.shutdown_background();
    done.map_err(|error| Failed::because(error.to_string()))
}

/// Creates a runtime that uses all processors.
pub(super) fn runtime() -> Result<Runtime, Failed> {
    Runtime::new().map_err(|error| Failed::because(format!("no runtime: {error}")))
}

/// Starts the log on standard error. A line that cannot be written is lost; reporting that there, too, would end the process.
fn start_log(log: &Log) -> Batches<Patient<Stderr>> {
    let terminal = stderr().is_terminal();
    let lines = Batches::new(Patient::new(stderr()));
    let builder = tracing_subscriber::fmt()
        .with_writer(lines.clone())
        .log_internal_errors(false)
        .with_env_filter(EnvFilter::new(format!("{},{}=info", filter(log.level), maillog::AUDIT)))
        .with_target(false);
    match log.format {
        LogFormat::Auto if terminal => builder.init(),
        LogFormat::Text => builder.with_ansi(terminal).init(),
        LogFormat::Auto | LogFormat::Json => builder.event_format(JsonLines).init(),
    }
    lines
}

/// Sends panics to the log, in the same form as everything else.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        maillog::panicked(&at, panic.payload_as_str().unwrap_or_default());
    }));
}

/// Messages of libraries are logged only if they are serious or everything is wanted: some warn about what any stranger
/// can send. Audit lines are logged at every level.
fn filter(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "error,gatepost=warn",
        LogLevel::Info => "error,gatepost=info",
        LogLevel::Debug => "warn,gatepost=debug",
        LogLevel::Trace => "info,gatepost=trace",
    }
}
