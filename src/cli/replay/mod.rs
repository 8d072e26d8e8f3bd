//! `gatepost replay`: what certain settings would have done to past mail, according to existing logs.
//!
//! Opens logs and prints what [`mod@crate::replay`] makes of them. It needs no configuration; if there is one, its
//! settings are among those tried. It changes nothing and contacts nobody.

mod progress;
mod source;
mod tables;

use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::output::{Failed, warn};
use super::text::{count, moment};
use super::{Format, load_if_there, time};
use crate::account::Account;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::guard::ledger::{Detection, Leniency, OnAlarm};
use crate::guard::window::Rule;
use crate::replay::attribution::Attribution;
use crate::replay::log::Replay;
use crate::replay::plot;
use crate::replay::report::{Reading, Report, Setting};
use crate::replay::trial::{Course, Grid, Own, OwnTerms, Trial};
use progress::Progress;
use source::Source;

/// The limits tried, beside the configured one.
const LIMITS: [u32; 6] = [25, 50, 75, 100, 150, 200];
/// The usual shares tried.
const USUAL_SHARES: [f64; 4] = [0.02, 0.05, 0.10, 0.15];

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Mail logs of Postfix, Exim or Gatepost, plain or gzip; `-` or none: standard input
    #[arg(value_name = "LOG")]
    logs: Vec<PathBuf>,
    /// Draw each suspicious account's invalid recipients over time, as SVG
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// A network of machines that send without logging in, beside those of `[relay] hosts`; may be given more than once
    #[arg(long, value_name = "NETWORK", value_parser = network)]
    relay: Vec<IpNet>,
    /// Only what was logged since then: 2026-11-24T16:05:28Z, or a duration ago such as 30d
    #[arg(long, value_name = "TIME", value_parser = time::since)]
    since: Option<Timestamp>,
    /// Only what was logged until then
    #[arg(long, value_name = "TIME", value_parser = time::since)]
    until: Option<Timestamp>,
    #[command(flatten)]
    format: Format,
}

pub(super) fn run(arguments: &Arguments, file: Option<&Path>) -> Result<(), Failed> {
    if let (Some(since), Some(until)) = (arguments.since, arguments.until)
        && since > until
    {
        return Err(Failed::Misused(format!(
            "--since is later than --until ({} and {}); of two durations ago, --since takes the longer one",
            moment(since),
            moment(until)
        )));
    }
    let config = load_if_there(file)?;
    let sources = source::open(&arguments.logs)?;
    let grid = grid(config.as_ref());
    let mut relay_hosts = config.as_ref().map(|config| config.relay_hosts.clone()).unwrap_or_default();
    relay_hosts.extend(&arguments.relay);
    let rules = config.as_ref().map(|config| config.classify.clone()).unwrap_or_default();
    let (setting, own) = config.map(yours).unzip();

    let attribution = Attribution::new(relay_hosts);
    let mut replay = Replay::new(rules, attribution, Trial::new(grid, own), arguments.since, arguments.until);
    let mut progress = Progress::new(&sources);
    let (names, mut logs): (Vec<_>, Vec<_>) = sources.into_iter().map(Source::into_log).unzip();
    let mut faults = Vec::new();
    replay.read(
        &mut logs,
        |place, error| faults.push(format!("{}: {error}; what came before counts", names[place])),
        |lines| progress.show(lines),
    );
    progress.clear();
    for fault in &faults {
        warn(fault);
    }
    let (trial, reading, left_out) = replay.finish();
    let report = Report::of(&trial, reading, left_out, setting);
    let Reading { lines, used, out_of_time, from, .. } = report.reading;
    if out_of_time > 0 && from.is_none() {
        return Err(Failed::because(format!(
            "every line that can be read lies before --since or after --until ({} in all)",
            count(lines, "line")
        )));
    }
    if used == 0 {
        return Err(Failed::because(format!(
            "none of the {} lines tells of a message or a recipient; replay reads the mail logs of Postfix, Exim and Gatepost",
            lines
        )));
    }
    if let Some(file) = &arguments.plot {
        draw(&report, file)?;
    }
    let mut output = arguments.format.output();
    if output.is_json() {
        output.object(&report)?;
    } else {
        tables::print(&report, &mut output)?;
    }
    output.flush()
}

fn network(text: &str) -> Result<IpNet, String> {
    let network: Option<IpNet> =
        text.parse().ok().or_else(|| text.parse().ok().map(|address: std::net::IpAddr| address.into()));
    network.ok_or_else(|| format!("`{text}` is neither an address nor a network such as 192.0.2.0/24"))
}

/// The settings tried on all accounts, including the configured ones.
fn grid(config: Option<&Config>) -> Grid {
    let (rule, detection) = match config {
        Some(Config { policy, .. }) => {
            let (limit, period, count) = (policy.invalid_recipients, policy.period, policy.count);
            (Rule { limit, period, count }, policy.detection)
        }
        None => (Rule::DEFAULT, Detection::DEFAULT),
    };
    let Detection { delay, usual_share, thief_share, threshold, on_alarm: _ } = detection;
    let mut grid = Grid {
        limits: [&LIMITS[..], &[rule.limit]].concat(),
        period: rule.period,
        count: rule.count,
        usual_shares: [&USUAL_SHARES[..], &[usual_share]].concat(),
        thief_share,
        threshold,
        delay,
    };
    grid.usual_shares.retain(|share| *share < thief_share);
    grid.limits.sort_unstable();
    grid.limits.dedup();
    grid.usual_shares.sort_by(f64::total_cmp);
    grid.usual_shares.dedup();
    grid
}

/// The configured setting for accounts in general, and the exceptions for some.
fn yours(config: Config) -> (Setting, OwnTerms) {
    let policy = config.policy;
    // An alarm that is only reported does not stop anybody.
    let stops = matches!(policy.detection.on_alarm, OnAlarm::Probation | OnAlarm::Block);
    let usual_share = stops.then_some(policy.detection.usual_share);
    let setting = Setting { invalid_recipients: Some(policy.invalid_recipients), usual_share };
    let own = move |account: &Account| {
        let terms = policy.terms(account);
        let course = Course {
            rule: terms.rule,
            limits: vec![terms.rule.limit],
            tests: if stops { vec![terms.test] } else { Vec::new() },
            delay: terms.delay,
        };
        Own {
            course: (terms.leniency == Leniency::None).then_some(course),
            exempt: terms.leniency == Leniency::Exempt,
            alarm_blocks: terms.on_alarm == OnAlarm::Block,
        }
    };
    (setting, Box::new(own))
}

fn draw(report: &Report<'_>, file: &Path) -> Result<(), Failed> {
    let Some(svg) = plot::draw(report) else {
        warn("no account is suspicious: nothing is drawn");
        return Ok(());
    };
    std::fs::write(file, svg)
        .map_err(|error| Failed::because(format!("{} cannot be written: {error}", file.display())))
}
