//! The picture of `--plot`: each suspicious account's invalid recipients within the period, over time, with the
//! thresholds.
//!
//! SVG 1.1 with a handful of elements and no scripts, style sheets or external resources. Names are escaped.

use std::fmt::Write;

use super::report::{Report, Suspect};
use crate::clock::Timestamp;
use crate::visible::is_unsafe;

/// The most accounts drawn.
pub const MOST_PANELS: usize = 24;

const WIDTH: f64 = 960.0;
const PANEL: f64 = 220.0;
const HEADER: f64 = 56.0;
/// The edges of the curve's area within a panel.
const LEFT: f64 = 56.0;
const RIGHT: f64 = 84.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 30.0;

const CURVE: &str = "#1f5fa8";
const LIMIT: &str = "#b3261e";
const ALARM: &str = "#a06000";

/// Draws the picture; `None` if no account is suspicious.
pub fn draw(report: &Report<'_>) -> Option<String> {
    let shown: Vec<_> = report.suspects.iter().take(MOST_PANELS).collect();
    if shown.is_empty() {
        return None;
    }
    let mut svg = String::new();
    let panels: u32 = shown.iter().map(|_| 1).sum();
    let height = HEADER + PANEL * f64::from(panels);
    // Writing to a String cannot fail; likewise below.
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    let left_out = report.suspects.len() - shown.len();
    let more = if left_out > 0 { format!("; {left_out} more are not drawn") } else { String::new() };
    let title = format!("Recipients that do not exist, within {}{more}", period(report.period_seconds));
    text(&mut svg, 16.0, 24.0, "start", "#000000", 16, &title);
    let legend = "red: [limit] invalid_recipients; amber: the test's first alarm, by usual_share";
    text(&mut svg, 16.0, 44.0, "start", "#555555", 12, legend);
    let mut limits: Vec<u32> =
        report.settings.iter().filter_map(|row| row.setting.invalid_recipients).collect();
    limits.sort_unstable();
    limits.dedup();
    let mut top = HEADER;
    for suspect in shown {
        panel(&mut svg, top, suspect, &limits, report.period_seconds * 1_000);
        top += PANEL;
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

/// Maps times and counts to positions in a panel.
struct Scale {
    from: u64,
    until: u64,
    most: u32,
    top: f64,
}

impl Scale {
    #[expect(clippy::cast_precision_loss, reason = "a picture has a thousand pixels")]
    fn x(&self, at: u64) -> f64 {
        let part = at.clamp(self.from, self.until) - self.from;
        LEFT + (WIDTH - LEFT - RIGHT) * part as f64 / (self.until - self.from).max(1) as f64
    }

    fn y(&self, count: u32) -> f64 {
        let height = PANEL - TOP - BOTTOM;
        self.top + TOP + height * (1.0 - f64::from(count.min(self.most)) / f64::from(self.most.max(1)))
    }
}

fn panel(svg: &mut String, top: f64, suspect: &Suspect<'_>, limits: &[u32], period: u64) {
    let points: Vec<(u64, u32)> =
        suspect.curve.points().iter().map(|(at, count)| (at.as_millis(), *count)).collect();
    let highest = points.iter().map(|(_, count)| *count).max().unwrap_or(1);
    // Only the interesting part: a thief's hour would be a hair's breadth in a month.
    let mut matters = points.iter().filter(|(_, count)| *count >= highest.div_ceil(10)).map(|(at, _)| *at);
    let Some(first) = matters.next() else { return };
    let last = matters.next_back().unwrap_or(first) + period;
    let margin = (last - first) / 50;
    // Includes the next higher limit, to show how far away it is.
    let reached = limits.iter().filter(|limit| **limit <= highest).count();
    let limits = limits.get(..=reached).unwrap_or(limits);
    let scale = Scale {
        from: first.saturating_sub(margin),
        until: last + margin,
        most: highest.max(limits.iter().copied().max().unwrap_or(0)).max(10) * 21 / 20,
        top,
    };
    let name = format!(
        "{}: {} invalid of {} ({:.1} %); looks like: {}{}",
        suspect.account,
        suspect.invalid,
        suspect.invalid + suspect.accepted,
        suspect.share * 100.0,
        suspect.looks_like.word(),
        if suspect.exempt { "; exempt" } else { "" },
    );
    text(svg, LEFT, top + 20.0, "start", "#000000", 13, &name);
    axes(svg, &scale);
    for limit in limits {
        let y = scale.y(*limit);
        line(svg, [(LEFT, y), (WIDTH - RIGHT, y)], LIMIT, "6 4");
        text(svg, WIDTH - RIGHT + 6.0, y + 4.0, "start", LIMIT, 11, &limit.to_string());
    }
    let mut label = top + TOP + 4.0;
    for stop in &suspect.stops {
        let Some(share) = stop.setting.usual_share else { continue };
        let at = stop.at.as_millis();
        if !(scale.from..=scale.until).contains(&at) {
            continue;
        }
        let x = scale.x(at);
        line(svg, [(x, top + TOP), (x, top + PANEL - BOTTOM)], ALARM, "2 3");
        // The alarms of several shares are close together.
        let (at, anchor) = if x > WIDTH / 2.0 { (x - 4.0, "end") } else { (x + 4.0, "start") };
        text(svg, at, label + 6.0, anchor, ALARM, 11, &share.to_string());
        label += 13.0;
    }
    curve(svg, &scale, &points, period);
}

/// Rises with each invalid recipient, and falls as a burst ages out of the period: from when its first recipient does
/// until its last does, since the counts in between are not known.
fn curve(svg: &mut String, scale: &Scale, points: &[(u64, u32)], period: u64) {
    let mut path = format!("M{:.1} {:.1}", scale.x(scale.from), scale.y(0));
    let mut burst: Option<(u64, u64, u32)> = None;
    for (at, count) in points.iter().filter(|(at, _)| (scale.from..=scale.until).contains(at)) {
        if let Some((begin, before, height)) = burst
            && at.saturating_sub(before) >= period
        {
            fall(&mut path, scale, begin, before, height, period);
            burst = None;
        }
        let begin = burst.map_or(*at, |(begin, ..)| begin);
        match burst {
            Some(_) => {
                let _ = write!(path, "L{:.1} {:.1}", scale.x(*at), scale.y(*count));
            }
            None => {
                let _ = write!(path, "H{:.1}V{:.1}", scale.x(*at), scale.y(*count));
            }
        }
        burst = Some((begin, *at, *count));
    }
    if let Some((begin, before, height)) = burst {
        fall(&mut path, scale, begin, before, height, period);
    }
    let _ = write!(path, "H{:.1}", scale.x(scale.until));
    let _ = writeln!(svg, "<path d=\"{path}\" fill=\"none\" stroke=\"{CURVE}\" stroke-width=\"1.8\"/>");
}

fn fall(path: &mut String, scale: &Scale, begin: u64, before: u64, height: u32, period: u64) {
    let from = before.max(begin + period);
    let _ = write!(path, "L{:.1} {:.1}", scale.x(from), scale.y(height));
    let _ = write!(path, "L{:.1} {:.1}", scale.x(before + period), scale.y(0));
}

fn axes(svg: &mut String, scale: &Scale) {
    let bottom = scale.y(0);
    line(svg, [(LEFT, bottom), (WIDTH - RIGHT, bottom)], "#888888", "");
    line(svg, [(LEFT, scale.top + TOP), (LEFT, bottom)], "#888888", "");
    for part in 0..=4_u32 {
        let count = scale.most * part / 4;
        text(svg, LEFT - 6.0, scale.y(count) + 4.0, "end", "#555555", 11, &count.to_string());
        let at = scale.from + (scale.until - scale.from) / 4 * u64::from(part);
        let anchor = if part == 4 {
            "end"
        } else if part == 0 {
            "start"
        } else {
            "middle"
        };
        text(svg, scale.x(at), bottom + 16.0, anchor, "#555555", 11, &minute(at));
    }
}

/// `2026-11-24 16:05`
fn minute(at: u64) -> String {
    Timestamp::from_millis(at).to_string().replace('T', " ").chars().take("2026-11-24 16:05".len()).collect()
}

fn period(seconds: u64) -> String {
    match seconds {
        3_600 => "an hour".to_owned(),
        seconds if seconds % 3_600 == 0 => format!("{} hours", seconds / 3_600),
        seconds if seconds % 60 == 0 => format!("{} minutes", seconds / 60),
        seconds => format!("{seconds} seconds"),
    }
}

fn line(svg: &mut String, [from, to]: [(f64, f64); 2], colour: &str, dashes: &str) {
    let _ = writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" stroke-dasharray=\"{dashes}\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, colour: &str, size: u32, text: &str) {
    let escaped = escape(text);
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\" font-size=\"{size}\">{escaped}</text>"
    );
}

/// Escapes text as XML 1.0 character data; characters that are not allowed become U+FFFD.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c if is_unsafe(c) || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::account::Account;
    use crate::guard::classify::Outcome;
    use crate::guard::window::{Count, Key};
    use crate::replay::attribution::{Attempt, LeftOut};
    use crate::replay::report::Reading;
    use crate::replay::trial::{Grid, Trial};

    fn picture(accounts: &[&str], invalid: u64) -> Option<String> {
        let mut trial = Trial::new(
            Grid {
                limits: vec![25, 50],
                period: Duration::from_secs(3_600),
                count: Count::Distinct,
                usual_shares: vec![0.05],
                thief_share: 0.30,
                threshold: 12.0,
                delay: Duration::from_secs(1_800),
            },
            None,
        );
        for second in 0..invalid {
            for name in accounts {
                let key = Key::of(format!("{name}{second}").as_bytes());
                trial.put(&Attempt {
                    at: Timestamp::from_millis(1_700_000_000_000 + second * 1_000),
                    account: Account::user(name).unwrap(),
                    key,
                    domain: Some(key),
                    outcome: Outcome::NoSuchRecipient,
                });
            }
        }
        draw(&Report::of(&trial, Reading::default(), LeftOut::default(), None))
    }

    #[test]
    fn names_are_escaped_and_elements_balanced() {
        let svg = picture(&["<script>&\"x'", "anna", "\u{202e}gpj"], 30).unwrap();
        assert!(
            svg.contains("user:&lt;script&gt;&amp;&quot;x'") && svg.contains("user:\u{fffd}gpj"),
            "{svg}"
        );
        assert_eq!(
            (svg.matches("<text").count(), svg.matches("<svg").count()),
            (svg.matches("</text>").count(), 1)
        );
        assert_eq!(svg.matches("<path").count(), 3);
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        // Each line is one self-contained element.
        for line in svg.lines().filter(|line| !line.contains("svg")) {
            assert!(line.starts_with('<') && (line.ends_with("/>") || line.ends_with("</text>")), "{line}");
        }
        // The limit that was reached, and the next one.
        assert!(svg.contains(">25</text>") && svg.contains(">50</text>"));
    }

    #[test]
    fn nobody_and_too_many() {
        assert_eq!(picture(&["anna"], 3), None);
        let names: Vec<String> = (0..MOST_PANELS + 5).map(|number| format!("a{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let svg = picture(&names, 30).unwrap();
        assert_eq!(svg.matches("<path").count(), MOST_PANELS);
        assert!(svg.contains("5 more are not drawn"));
    }
}
