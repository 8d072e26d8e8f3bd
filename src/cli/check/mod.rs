//! `gatepost check`: would Gatepost work with this configuration, and would it see anything?
//!
//! [`local`] looks at this machine and [`upstream`] asks the MTA in the way it will be used; both only gather facts.
//! [`judge`] turns them into findings and cures. It needs no running `serve`, changes nothing and sends no mail.

mod folder;
mod judge;
mod local;
mod upstream;

use std::path::Path;

use serde::Serialize;

use super::Format;
use super::output::Failed;
use super::text::clean;
use crate::config::Config;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    format: Format,
}

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    /// Gatepost would not work, or would not see anything.
    Error,
    /// The operator should know.
    Warning,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Finding {
    severity: Severity,
    /// The subject, in one word.
    about: &'static str,
    /// What is wrong.
    finding: String,
    /// How to mend it.
    cure: String,
}

pub(super) async fn run(arguments: &Arguments, config: &Config) -> Result<(), Failed> {
    // Goes on even if nobody reads all of it: the verdict covers everything.
    let mut output = arguments.format.output().going_on();
    let here = local::look(config);
    let there = upstream::ask_all(config).await;
    let findings = judge::all(&here, &there, config);
    let file = config.file.as_deref().unwrap_or(Path::new("the configuration")).display().to_string();
    let file = clean(&file);
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
        output.line(&format!(
            "All is well with {file}: the upstream takes our mail, and refuses recipients that do not exist."
        ))?;
    }
    let written = output.end();
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    match errors {
        0 => written,
        1 => Err(Failed::because(format!(
            "one of these findings about {file} would keep Gatepost from working; cure that first"
        ))),
        more => Err(Failed::because(format!(
            "{more} of these findings about {file} would keep Gatepost from working; cure those first"
        ))),
    }
}
