//! The tables of the page.

use std::fmt::Write;

use crate::gate::{self, Desk, Outcome, Setting, play as run};
use crate::lists::{Kind, Named, Thief, events};

/// Between these the page has the tables.
pub(crate) const BEGIN: &str = "<!-- written by tests/simulation -->";
/// See [`BEGIN`].
pub(crate) const END: &str = "<!-- end -->";

/// A kind of sender under all settings.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) limit: Mean,
    pub(crate) test: Mean,
    pub(crate) away: Mean,
    pub(crate) awake: Mean,
    /// A run.
    living: f64,
    /// In all runs.
    recipients: u64,
    accounts: u64,
}

/// Of all runs under one setting.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mean {
    /// Living recipients reached in a run.
    pub(crate) reached: f64,
    /// The shares of the accounts that were blocked, and put on probation.
    pub(crate) blocked: f64,
    pub(crate) delayed: f64,
    /// In all runs.
    blocks: u64,
    delays: u64,
}

pub(crate) fn play(named: &Named, seed: u64) -> Row {
    let mut row = Row {
        name: named.name,
        limit: Mean::default(),
        test: Mean::default(),
        away: Mean::default(),
        awake: Mean::default(),
        living: 0.0,
        recipients: 0,
        accounts: 0,
    };
    for n in 0..named.runs {
        let events = events(&named.kind, seed + n);
        row.living += events.iter().filter(|event| event.exists).count() as f64 / named.runs as f64;
        row.recipients += events.len() as u64;
        row.accounts += events.iter().map(|event| event.account as u64 + 1).max().unwrap_or_default();
        for (mean, setting) in [
            (&mut row.limit, Setting::LIMIT),
            (&mut row.test, Setting::TEST),
            (&mut row.away, Setting::AWAY),
            (&mut row.awake, Setting::AWAKE),
        ] {
            if setting.desk == Desk::Awake && !matches!(named.kind, Kind::Thief(_)) {
                continue;
            }
            let Outcome { reached, blocked, delayed, .. } = run(&events, &setting);
            mean.reached += reached as f64 / named.runs as f64;
            (mean.blocks, mean.delays) = (mean.blocks + blocked, mean.delays + delayed);
        }
    }
    for mean in [&mut row.limit, &mut row.test, &mut row.away, &mut row.awake] {
        mean.blocked = mean.blocks as f64 / row.accounts as f64;
        mean.delayed = mean.delays as f64 / row.accounts as f64;
    }
    row
}

pub(crate) fn tables(thieves: &[Row], honest: &[Row], seed: u64) -> String {
    let mut text = String::new();
    let mut line = |text_line: String| writeln!(text, "{text_line}").unwrap();
    line(format!(
        "Seed {seed}. Living recipients reached before the mail stopped, a run, over all accounts of the thief:\n"
    ));
    line("| thief | nothing | limit alone | test alone, blocks | both, nobody at the desk | both, desk acts in 20 minutes |".into());
    line("| --- | ---: | ---: | ---: | ---: | ---: |".into());
    for row in thieves {
        let [nothing, limit, test, away, awake] =
            [row.living, row.limit.reached, row.test.reached, row.away.reached, row.awake.reached].map(whole);
        line(format!("| {} | {nothing} | {limit} | {test} | {away} | {awake} |", row.name));
    }
    line(
        "\nHonest senders: accounts blocked, and put on probation; in brackets for a million recipients.\n"
            .into(),
    );
    line("| honest sender | blocked: limit alone | test alone, blocks | both | on probation: both |".into());
    line("| --- | ---: | ---: | ---: | ---: |".into());
    for row in honest {
        let share = |share: f64, events: u64| {
            if events == 0 {
                return "none".to_owned();
            }
            let per_million = whole(events as f64 * 1e6 / row.recipients as f64);
            format!("{:.1} % ({per_million})", share * 100.0)
        };
        let Row { limit, test, away, .. } = row;
        line(format!(
            "| {} | {} | {} | {} | {} |",
            row.name,
            share(limit.blocked, limit.blocks),
            share(test.blocked, test.blocks),
            share(away.blocked, away.blocks),
            share(away.delayed, away.delays),
        ));
    }
    text
}

/// What other thresholds and shares would do, by the test alone.
pub(crate) fn other_settings(seed: u64) -> String {
    const THIEVES: u64 = 100;
    const NEWSLETTERS: u64 = 60;
    let mut text = String::from(
        "The test alone, with other shares and thresholds:\n\n\
         | t0 | t1 | h | thief, 30 % dead: reached | 20 % dead | one false alarm in so many recipients, 2 % stale | 5 % | 10 % | newsletters by domain, 5 % stale: alarmed |\n\
         | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for test in [
        gate::TEST,
        (0.05, 0.30, 8.0),
        (0.05, 0.30, 10.0),
        (0.05, 0.30, 14.0),
        (0.05, 0.30, 18.0),
        (0.02, 0.30, 12.0),
        (0.10, 0.30, 12.0),
        (0.05, 0.20, 12.0),
        (0.05, 0.40, 12.0),
    ] {
        let setting = Setting { test, ..Setting::TEST };
        let mean = |kind: &Kind, runs: u64, of: fn(Outcome) -> u64| {
            (0..runs).map(|n| of(run(&events(kind, seed + n), &setting))).sum::<u64>() as f64 / runs as f64
        };
        let reached = |dead| {
            let thief = Kind::Thief(Thief { dead, list: 400, ..Thief::TYPICAL });
            whole(mean(&thief, THIEVES, |outcome| outcome.reached))
        };
        let newsletter = Kind::Newsletter { stale: 0.05, by_domain: true };
        let alarmed = mean(&newsletter, NEWSLETTERS, |outcome| outcome.blocked) * 100.0;
        let [two, five, ten] = [0.02, 0.05, 0.10].map(|share| about(between_alarms(test, share)));
        let (t0, t1, h) = test;
        let (thirty, twenty) = (reached(0.30), reached(0.20));
        writeln!(
            text,
            "| {t0:.2} | {t1:.2} | {h} | {thirty} | {twenty} | {two} | {five} | {ten} | {alarmed:.0} % |"
        )
        .unwrap();
    }
    text
}

/// How many recipients there are between two alarms of a list with this share of invalid ones: the test as a Markov chain on
/// steps of a fifteenth of its fall, by the rate at which it alarms once it has settled.
pub(crate) fn between_alarms((t0, t1, h): (f64, f64, f64), share: f64) -> f64 {
    const FALL: usize = 15;
    let (rise, fall) = ((t1 / t0).ln(), ((1.0 - t0) / (1.0 - t1)).ln());
    let step = fall / FALL as f64;
    let rise = (rise / step).round() as usize;
    let states = (h / step).ceil() as usize;
    let mut now = vec![0.0; states];
    now[0] = 1.0;
    let mut alarmed = 0.0;
    for _ in 0..1_000 {
        let mut next = vec![0.0; states];
        alarmed = 0.0;
        for (s, mass) in now.iter().enumerate().filter(|(_, mass)| **mass > 0.0) {
            next[s.saturating_sub(FALL)] += mass * (1.0 - share);
            match next.get_mut(s + rise) {
                Some(there) => *there += mass * share,
                None => alarmed += mass * share,
            }
        }
        // After an alarm it starts from 0.
        next[0] += alarmed;
        now = next;
    }
    1.0 / alarmed
}

/// With two digits that count, and commas.
fn about(number: f64) -> String {
    let unit = 10f64.powf(number.log10().floor() - 1.0);
    let rounded = (number / unit).round() * unit;
    if rounded < 1e9 { whole(rounded) } else { "over a billion".to_owned() }
}

/// Rounded, with commas.
fn whole(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
