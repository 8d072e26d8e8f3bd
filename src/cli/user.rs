//! `gatepost user`: edits the users file. A running `serve` notices changes by itself.

use std::io::{self, BufRead};

use zeroize::Zeroizing;

use super::Format;
use super::local::postpone;
use super::output::{self, Failed, Output};
use super::table::{Table, column};
use crate::auth::edit::{self, Edited};
use crate::auth::users::Users;
use crate::clock;
use crate::config::Config;
use crate::control::api::Request;
use crate::control::client::Client;
use crate::control::{Actor, AuditLine};

/// The longest line read as a password, in octets; SASL takes no more.
const MAX_PASSWORD_LINE: u64 = 4 * 1024;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Add a user
    Add(PasswordArguments),
    /// Change a user's password
    Passwd(PasswordArguments),
    /// Remove a user; open sessions end
    Remove(NameArguments),
    /// All users, and how each can log in
    List(ListArguments),
}

#[derive(Debug, clap::Args)]
pub(super) struct PasswordArguments {
    /// The name with which the user logs in
    name: String,
    /// Read the password from standard input, one line, instead of asking for it
    #[arg(long)]
    password_stdin: bool,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, clap::Args)]
pub(super) struct NameArguments {
    /// As it stands in the users file
    name: String,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, clap::Args)]
pub(super) struct ListArguments {
    #[command(flatten)]
    format: Format,
}

/// What `--json` prints about a change.
#[derive(serde::Serialize)]
struct Changed<'a> {
    name: &'a str,
    done: &'static str,
    users: usize,
}

/// What `--json` prints about a user.
#[derive(serde::Serialize)]
struct Listed<'a> {
    name: &'a str,
    scheme: Option<&'a str>,
    mechanisms: Vec<&'static str>,
    shut_out: Option<&'a str>,
}

pub(super) async fn run(command: Command, config: &Config) -> Result<(), Failed> {
    match command {
        Command::Add(arguments) => {
            // Before anybody is asked for a password.
            let edited =
                edit::check_name(&arguments.name).map_err(|error| error.to_string()).and_then(|()| {
                    with_password(&arguments, |name, password| edit::add(&config.auth.users, name, password))
                });
            tell(arguments.format, config, "user add", "added", &arguments.name, edited).await
        }
        Command::Passwd(arguments) => {
            let edited =
                with_password(&arguments, |name, password| edit::passwd(&config.auth.users, name, password));
            tell(arguments.format, config, "user passwd", "password changed", &arguments.name, edited).await
        }
        Command::Remove(arguments) => {
            let edited = edit::remove(&config.auth.users, &arguments.name).map_err(|error| error.to_string());
            tell(arguments.format, config, "user remove", "removed", &arguments.name, edited).await
        }
        Command::List(arguments) => list(arguments.format, config).await,
    }
}

fn with_password<E: ToString>(
    arguments: &PasswordArguments,
    change: impl FnOnce(&str, &str) -> Result<Edited, E>,
) -> Result<Edited, String> {
    let password =
        if arguments.password_stdin { first_line(io::stdin().lock()) } else { asked_twice(&arguments.name) }?;
    change(&arguments.name, &password).map_err(|error| error.to_string())
}

fn asked_twice(name: &str) -> Result<Zeroizing<String>, String> {
    let ask = |prompt: String| {
        rpassword::prompt_password(prompt)
            .map(Zeroizing::new)
            .map_err(|error| format!("no terminal to ask for the password ({error}); use --password-stdin"))
    };
    let password = ask(format!("Password for {}: ", super::text::clean(name)))?;
    if password == ask("Once more: ".to_owned())? {
        Ok(password)
    } else {
        Err("the two are not the same; nothing was changed".to_owned())
    }
}

/// Reads the first line without its ending, which may be CRLF.
fn first_line(input: impl BufRead) -> Result<Zeroizing<String>, String> {
    let mut line = Zeroizing::new(String::new());
    io::Read::take(input, MAX_PASSWORD_LINE)
        .read_line(&mut line)
        .map_err(|error| format!("no password can be read from standard input: {error}"))?;
    let password = line.strip_suffix('\n').unwrap_or(&line);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() {
        return Err("standard input holds no password in its first line".to_owned());
    }
    Ok(Zeroizing::new(password.to_owned()))
}

async fn tell(
    format: Format,
    config: &Config,
    command: &str,
    done: &'static str,
    name: &str,
    edited: Result<Edited, String>,
) -> Result<(), Failed> {
    let outcome = edited.as_ref().map_or_else(String::as_str, |_| "done");
    audit(config, command, edited.as_ref().map_or(name, |edited| &edited.name), outcome).await;
    let Edited { name, users } = edited.map_err(Failed::because)?;
    let mut output = format.output();
    if output.is_json() {
        output.object(&Changed { name: &name, done, users })?;
    } else {
        output.line(&format!("{name}: {done}"))?;
    }
    output.flush()?;
    if users == 0 {
        output::warn(&format!("{} has no user any more: nobody can log in", config.auth.users.display()));
    }
    Ok(())
}

async fn list(format: Format, config: &Config) -> Result<(), Failed> {
    let users = Users::read(&config.auth.users).map_err(|error| error.to_string());
    let outcome = users.as_ref().map_or_else(String::as_str, |_| "done");
    audit(config, "user list", "all users", outcome).await;
    let users = users.map_err(Failed::because)?;
    let mut output = format.output();
    if users.is_empty() && !output.is_json() {
        output.line(&format!(
            "{} has no users; `gatepost user add NAME` makes one.",
            config.auth.users.display()
        ))?;
    }
    print(&users, config, &mut output)?;
    output.flush()
}

fn print(users: &Users, config: &Config, output: &mut Output) -> Result<(), Failed> {
    let mut table =
        Table::new([column("NAME", 1, 24, 60), column("SCHEME", 3, 14, 20), column("MECHANISMS", 2, 24, 60)]);
    for user in users.iter() {
        let mechanisms = user.mechanisms(&config.auth.mechanisms);
        let mechanisms: Vec<&str> = mechanisms.into_iter().map(|mechanism| mechanism.name()).collect();
        let (name, scheme, shut_out) = (user.name(), user.scheme(), user.shut_out());
        if output.is_json() {
            output.object(&Listed { name, scheme, mechanisms, shut_out })?;
        } else {
            let how = shut_out.map_or_else(|| mechanisms.join(" "), |why| format!("none: {why}"));
            table.row(output, [name.to_owned(), scheme.unwrap_or("-").to_owned(), how])?;
        }
    }
    table.finish(output).map(|_| ())
}

/// Leaves an audit line: in the log of a running `serve`, or for the next one.
async fn audit(config: &Config, command: &str, object: &str, outcome: &str) {
    if let Ok(Some(mut client)) = Client::connect(&config.data_dir).await {
        let (done, object, outcome) = (command.to_owned(), object.to_owned(), outcome.to_owned());
        if let Ok(mut answers) = client.perform(&Request::Audit { done, object, outcome }).await {
            while answers.recv().await.is_some() {}
            return;
        }
    }
    // Users are added before `serve` runs for the first time.
    if let Err(error) = crate::durable::create_folder(&config.data_dir) {
        return output::warn(&format!("no audit line is left: {error}"));
    }
    postpone(&config.data_dir, &AuditLine::new(&Actor::current(), command, object, outcome, clock::now()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_password() {
        for (input, expected) in [
            ("secret\n", Some("secret")),
            ("secret", Some("secret")),
            ("secret\r\n", Some("secret")),
            (" with blanks \nsecond\n", Some(" with blanks ")),
            ("", None),
            ("\nsecret\n", None),
        ] {
            assert_eq!(
                first_line(input.as_bytes()).ok().as_deref().map(String::as_str),
                expected,
                "{input:?}"
            );
        }
    }
}
