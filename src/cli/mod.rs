//! The command line: one file per command.
//!
//! Parses the arguments, runs one command and sets the exit status: 0 success; 1 failure, with one line on standard
//! error that says why and what to do; 2 wrong usage. A reader of the output that goes away (`| head`) is not a
//! failure.

mod account;
mod block;
mod check;
mod delete;
mod demo;
mod export;
mod gate;
mod kick;
mod list;
mod local;
mod machine;
mod output;
mod preview;
mod quarantine;
mod release;
mod replay;
mod serve;
mod show;
mod status;
mod table;
mod text;
mod time;
mod user;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Config;
use output::{Failed, Output};

/// Where the configuration is looked for, in this order.
const CONFIG_FILES: [&str; 2] = ["config.toml", "/etc/gatepost/config.toml"];

/// The exit status for wrong usage, as clap has it.
const USAGE: u8 = 2;

/// An SMTP submission proxy that catches stolen accounts.
#[derive(Debug, Parser)]
#[command(name = "gatepost", version, about, propagate_version = true)]
struct Arguments {
    /// The configuration file [default: config.toml in the working directory, then /etc/gatepost/config.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy, in the foreground; logs to standard error
    Serve,
    /// Try everything that Gatepost needs: files, certificates, the upstream
    Check(check::Arguments),
    /// Show on loopback how a stolen account is caught
    Demo(demo::Arguments),
    /// Edit the users file
    #[command(subcommand)]
    User(user::Command),
    /// Accounts with an invalid recipient in the window, or a block
    Status(status::Arguments),
    /// Park what an account sends from now on
    Block(block::BlockArguments),
    /// Lift a block, and forget the account's invalid recipients
    Unblock(block::UnblockArguments),
    /// End an account's open sessions
    Kick(kick::Arguments),
    /// Look into the quarantine; release or delete what is in it
    #[command(subcommand)]
    Quarantine(quarantine::Command),
    /// Tell by existing mail logs what settings would have done
    Replay(replay::Arguments),
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed::ReaderGone) => ExitCode::SUCCESS,
        Err(Failed::Because(why)) => {
            output::complain(&why);
            ExitCode::FAILURE
        }
        Err(Failed::Misused(why)) => {
            output::complain(&why);
            ExitCode::from(USAGE)
        }
        Err(Failed::Told) => ExitCode::FAILURE,
    }
}

fn run(Arguments { config: file, command }: Arguments) -> Result<(), Failed> {
    let file = file.as_deref();
    match command {
        // These two need no configuration.
        Command::Demo(arguments) => serve::runtime()?.block_on(demo::run(&arguments)),
        Command::Replay(arguments) => replay::run(&arguments, file),
        // Creates its own runtime once the process is ready for it.
        Command::Serve => serve::run(load(file)?),
        Command::Check(arguments) => wait(file, async |config| check::run(&arguments, config).await),
        Command::User(command) => wait(file, async |config| user::run(command, config).await),
        Command::Status(arguments) => wait(file, async |config| status::run(&arguments, config).await),
        Command::Block(arguments) => wait(file, async |config| block::block(arguments, config).await),
        Command::Unblock(arguments) => wait(file, async |config| block::unblock(arguments, config).await),
        Command::Kick(arguments) => wait(file, async |config| kick::run(arguments, config).await),
        Command::Quarantine(command) => wait(file, async |config| quarantine::run(command, config).await),
    }
}

/// Runs a command that needs the configuration, to its end.
fn wait(file: Option<&Path>, command: impl AsyncFnOnce(&Config) -> Result<(), Failed>) -> Result<(), Failed> {
    let config = load(file)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failed::because(format!("no runtime: {error}")))?;
    let done = runtime.block_on(command(&config));
    // Pending terminal or disk operations must not keep a command from ending.
    runtime.shutdown_background();
    done
}

fn load(file: Option<&Path>) -> Result<Config, Failed> {
    load_if_there(file)?.ok_or_else(|| {
        let [first, second] = CONFIG_FILES;
        Failed::because(format!(
            "neither {first} nor {second} is there; name the configuration with --config FILE"
        ))
    })
}

/// `None` if no file is named and there is none in the usual places.
fn load_if_there(file: Option<&Path>) -> Result<Option<Config>, Failed> {
    let found = CONFIG_FILES.iter().map(Path::new).find(|path| path.exists());
    let read =
        |file| Config::load(file, &machine::name()).map_err(|problems| Failed::because(problems.to_string()));
    file.or(found).map(read).transpose()
}

/// `--json`
#[derive(Debug, Clone, Copy, clap::Args)]
struct Format {
    /// Print JSON: one object a line
    #[arg(long)]
    json: bool,
}

impl Format {
    fn output(self) -> Output {
        Output::new(self.json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_is_understood() {
        for (line, understood) in [
            ("serve", true),
            ("--config gatepost.toml serve", true),
            ("status --json --config gatepost.toml", true),
            ("", false),
            ("check --json", true),
            ("demo --exit", true),
            ("user add anna --password-stdin --json", true),
            ("user add", false),
            ("user list --json", true),
            ("block anna --reason spam", true),
            ("block host:192.0.2.1 --json", true),
            ("block host:printer", false),
            ("block", false),
            ("unblock user:anna --release --kick", true),
            ("kick anna", true),
            ("quarantine list --account anna --sender a --subject b --since 2h --limit 5 --json", true),
            ("quarantine list --since 2026-11-24T16:05:28Z", true),
            ("quarantine list --since yesterday", false),
            ("quarantine list --limit -1", false),
            ("quarantine show ID --raw", true),
            ("quarantine show ID --raw --json", false),
            ("quarantine show", false),
            ("quarantine release A B C --quiet", true),
            ("quarantine release --account anna", true),
            ("quarantine release --all --json", true),
            ("quarantine release", false),
            ("quarantine release A --all", false),
            ("quarantine release --account anna --all", false),
            ("quarantine delete A B", true),
            ("quarantine delete --account anna", true),
            ("quarantine delete --all", false),
            ("quarantine delete", false),
            ("quarantine export A --output DIR", true),
            ("quarantine export A", false),
            ("quarantine export --output DIR", false),
            ("replay", true),
            ("replay - /var/log/mail.log.2.gz --json --plot a.svg", true),
            (
                "replay --relay 192.0.2.0/24 --relay 2001:db8::1 --since 30d --until 2026-11-24T16:05:28Z",
                true,
            ),
            ("replay --relay printer", false),
            ("replay --plot", false),
            ("frobnicate", false),
        ] {
            let words = std::iter::once("gatepost").chain(line.split_whitespace());
            let parsed = Arguments::try_parse_from(words);
            assert_eq!(parsed.is_ok(), understood, "{line}");
            if let Err(error) = parsed {
                assert_eq!(error.exit_code(), 2, "{line}");
            }
        }
    }
}
