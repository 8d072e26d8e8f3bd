//! Turns the facts into findings, each with its cure. Pure.
//!
//! Errors are what would keep Gatepost from working: being blind at the upstream's own or a canary domain, XCLIENT
//! offered but refused, mail refused to those who may send, files that cannot be used. Everything else is a warning.

mod machine;
mod secrets;
mod upstream;

use std::path::Path;

use super::{Finding, Severity, local};
use crate::config::Config;
use crate::upstream::Address;
use crate::visible::shell_word;

fn error(about: &'static str, finding: impl Into<String>, cure: impl Into<String>) -> Finding {
    Finding { severity: Severity::Error, about, finding: finding.into(), cure: cure.into() }
}

fn warning(about: &'static str, finding: impl Into<String>, cure: impl Into<String>) -> Finding {
    Finding { severity: Severity::Warning, about, finding: finding.into(), cure: cure.into() }
}

/// A path as one word of a command to copy.
fn path_word(path: &Path) -> String {
    shell_word(&path.display().to_string())
}

/// All findings, the worst first.
pub(super) fn all(
    here: &local::Facts,
    there: &[(Address, super::upstream::Facts)],
    config: &Config,
) -> Vec<Finding> {
    let mut findings = machine::findings(here, config);
    findings.extend(secrets::findings(here, there));
    findings.extend(upstream::findings(there, config));
    findings.sort();
    findings.dedup();
    findings
}

#[cfg(test)]
mod sample {
    use std::path::Path;

    use super::super::local::{Certificate, Facts, UsersFile};
    use crate::config::Config;

    pub(super) fn config(text: &str) -> Config {
        Config::parse(text, Path::new("config.toml"), "mail.example.org").unwrap()
    }

    /// A machine on which all is well.
    pub(super) fn well() -> Facts {
        Facts {
            read_as: Ok(None),
            descriptors: None,
            certificate: Certificate::Usable,
            expiring: Vec::new(),
            users: usable(Vec::new(), Vec::new(), 3),
            senders: None,
            exposed: Vec::new(),
            notify: Vec::new(),
            weak_secret: false,
            open_secrets: Vec::new(),
            unusable: None,
            stranger: None,
            foreign: None,
        }
    }

    pub(super) fn usable(
        shut_out: Vec<(String, String)>,
        barred: Vec<(&'static str, String)>,
        offered: usize,
    ) -> UsersFile {
        UsersFile::Usable { shut_out, barred, offered, unknown: Vec::new() }
    }
}
