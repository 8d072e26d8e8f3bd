//! `gatepost check`: would Gatepost work as it is configured, and would it see anything?
//!
//! [`local`] looks at this machine, [`upstream`] asks the MTA as it will be used; both only gather facts. What follows
//! from them, with the cure, is [`judge`]'s. Needs no running `serve`, changes nothing, sends no mail.

mod folder;
mod judge;
mod local;
mod upstream;

use serde::Serialize;

use super::Format;
use super::output::Failed;
use crate::config::Config;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    format: Format,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    /// It keeps Gatepost from working, or from seeing anything.
    Error,
    /// It should be known.
    Warning,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Finding {
    severity: Severity,
    /// What it is about, in one word.
    about: &'static str,
    /// What is so.
    finding: String,
    /// What to do.
    cure: String,
}

pub(super) async fn run(arguments: &Arguments, config: &Config) -> Result<(), Failed> {
    // Whether or not anybody reads all of it: the verdict is on all.
    let mut output = arguments.format.output().going_on();
    let mut findings = judge::local(&local::look(config), config);
    findings.extend(judge::upstreams(&upstream::ask_all(config).await, config));
    findings.sort();
    findings.dedup();
    for finding in &findings {
        if output.is_json() {
            output.object(finding)?;
            continue;
        }
        let word = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let stop = if finding.finding.ends_with(['?', '.']) { "" } else { "." };
        output.line(&format!("{word}: {}{stop} {}", finding.finding, finding.cure))?;
    }
    if findings.is_empty() && !output.is_json() {
        output.line("All is well: the upstream takes our mail, and refuses recipients that do not exist.")?;
    }
    let written = output.end();
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    match errors {
        0 => written,
        1 => Err(Failed::because("one of the findings would keep Gatepost from working; cure that first")),
        more => Err(Failed::because(format!(
            "{more} of the findings would keep Gatepost from working; cure those first"
        ))),
    }
}
