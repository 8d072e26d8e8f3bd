//! Runs `gatepost` commands of this program against the demo's server, as an operator would from another terminal.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::DemoError;

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often to check whether it has ended.
const TICK: Duration = Duration::from_millis(5);

/// Where the program and its configuration are.
pub(super) struct Gatepost {
    program: PathBuf,
    folder: PathBuf,
    config: PathBuf,
}

/// Kills the command if the demo is interrupted meanwhile.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Gatepost {
    /// This program with that configuration. The output of commands passes through files in `folder`.
    ///
    /// # Errors
    /// The system does not tell where this program is.
    pub(super) fn new(folder: &Path, config: &Path) -> Result<Self, DemoError> {
        let program =
            std::env::current_exe().map_err(|error| DemoError::setup("gatepost's commands", &error))?;
        Ok(Self { program, folder: folder.to_owned(), config: config.to_owned() })
    }

    /// The words before a command, for a reader to copy.
    pub(super) fn prefix(&self) -> String {
        format!("{} --config {}", quoted(&self.program), quoted(&self.config))
    }

    /// Runs one command to its end; returns its standard output.
    ///
    /// # Errors
    /// The command cannot be run, takes too long, or fails.
    pub(super) async fn run(&self, arguments: &[&str], input: &str) -> Result<String, DemoError> {
        let named = format!("gatepost {}", arguments.join(" "));
        let failed = |why: &dyn std::fmt::Display| DemoError::Deviation(format!("`{named}` failed: {why}"));
        let (out, errors) = (self.folder.join("command.out"), self.folder.join("command.err"));
        let status = self.wait(arguments, input, &out, &errors).await.map_err(|error| failed(&error))?;
        let read =
            |path: &Path| std::fs::read(path).map(|octets| String::from_utf8_lossy(&octets).into_owned());
        let printed = read(&out).map_err(|error| failed(&error))?;
        if status.success() {
            Ok(printed)
        } else {
            let complaint = read(&errors).map_err(|error| failed(&error))?;
            Err(failed(&format!("{status}; {}", complaint.trim_end())))
        }
    }

    async fn wait(
        &self,
        arguments: &[&str],
        input: &str,
        out: &Path,
        errors: &Path,
    ) -> io::Result<ExitStatus> {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&self.config).args(arguments);
        command.stdin(Stdio::piped()).stdout(File::create(out)?).stderr(File::create(errors)?);
        // Ctrl-C is for the demo, which then kills the command.
        command.process_group(0);
        let mut running = Running(command.spawn()?);
        if let Some(mut stdin) = running.0.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = running.0.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "it did not end in time"));
            }
            sleep(TICK).await;
        }
    }
}

/// Quotes a path for a shell.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+".contains(c));
    if plain { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_for_a_shell() {
        for (path, expected) in [
            ("/tmp/a-1.b", "/tmp/a-1.b"),
            ("/tmp/a b", "'/tmp/a b'"),
            ("/it's", r"'/it'\''s'"),
            ("/$x", "'/$x'"),
        ] {
            assert_eq!(quoted(Path::new(path)), expected);
        }
    }
}
