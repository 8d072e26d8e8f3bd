//! Extensions that Gatepost passes through to an upstream that offers them: REQUIRETLS (RFC 8689), DELIVERBY (2852),
//! FUTURERELEASE (4865), MT-PRIORITY (6710); and LIMITS (9422), which both sides have.
//!
//! Parses their EHLO lines, computes what two upstreams have in common, and checks the grammar of their parameters,
//! which are kept as written. Nothing is carried out here: that is the upstream's business.

use std::fmt;

use crate::clock::Timestamp;

/// The most digits of a time in seconds (RFC 2852 4, RFC 4865 3).
const MAX_DIGITS: usize = 9;
/// The most digits of a limit (RFC 9422 2).
const MAX_LIMIT_DIGITS: usize = 6;
/// The longest name of a priority profile that is passed on; registered ones have up to 10 characters (RFC 6710 9.2).
const MAX_PROFILE: usize = 40;

/// What an upstream offers of these extensions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Further {
    /// REQUIRETLS: trustworthy only if offered over TLS with a verified certificate.
    pub require_tls: bool,
    /// LIMITS; all `None` if it is not offered.
    pub limits: Limits,
    /// DELIVERBY: the minimum by-time in seconds, 0 if there is none.
    pub deliver_by: Option<u32>,
    /// FUTURERELEASE
    pub future_release: Option<FutureRelease>,
    /// MT-PRIORITY: the name of the profile, empty if none was named.
    pub mt_priority: Option<String>,
}

/// How far ahead a message may be released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FutureRelease {
    /// The longest interval, in seconds.
    pub max_interval: u32,
    /// The latest time, in RFC 3339 format.
    pub max_date_time: String,
}

/// Limits of a session (RFC 9422 4).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// The most transactions in a session.
    pub mail_max: Option<u32>,
    /// The most recipients in a transaction.
    pub rcpt_max: Option<u32>,
    /// The most different recipient domains.
    pub rcpt_domain_max: Option<u32>,
}

impl Limits {
    /// Returns the smaller of each limit.
    #[must_use]
    pub fn smaller(self, other: Self) -> Self {
        let smaller = |one: Option<u32>, other: Option<u32>| one.into_iter().chain(other).min();
        Self {
            mail_max: smaller(self.mail_max, other.mail_max),
            rcpt_max: smaller(self.rcpt_max, other.rcpt_max),
            rcpt_domain_max: smaller(self.rcpt_domain_max, other.rcpt_domain_max),
        }
    }

    /// Parses what follows LIMITS. An unknown or malformed limit is ignored (RFC 9422 2).
    fn parse(words: &[&str]) -> Self {
        let mut limits = Self::default();
        for (name, value) in words.iter().filter_map(|word| word.split_once('=')) {
            let value = number(value, MAX_LIMIT_DIGITS).filter(|value| *value > 0);
            match name.to_ascii_uppercase().as_str() {
                "MAILMAX" => limits.mail_max = value,
                "RCPTMAX" => limits.rcpt_max = value,
                "RCPTDOMAINMAX" => limits.rcpt_domain_max = value,
                _ => {}
            }
        }
        limits
    }
}

/// The line of an EHLO reply, with its keyword; empty if there are no limits.
impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limits =
            [("MAILMAX", self.mail_max), ("RCPTMAX", self.rcpt_max), ("RCPTDOMAINMAX", self.rcpt_domain_max)];
        let mut limits = limits.iter().filter_map(|(name, limit)| Some((name, (*limit)?))).peekable();
        if limits.peek().is_some() {
            f.write_str("LIMITS")?;
        }
        limits.try_for_each(|(name, limit)| write!(f, " {name}={limit}"))
    }
}

impl Further {
    /// Parses a line of an EHLO reply; ignores other extensions.
    pub(super) fn add(&mut self, line: &str) {
        let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
        let Some(keyword) = words.next() else { return };
        let words: Vec<&str> = words.collect();
        match (keyword.to_ascii_uppercase().as_str(), words.as_slice()) {
            ("REQUIRETLS", []) => self.require_tls = true,
            ("LIMITS", limits) => self.limits = Limits::parse(limits),
            ("DELIVERBY", []) => self.deliver_by = Some(0),
            // RFC 2852 2: more parameters may be added after a comma.
            ("DELIVERBY", [least, ..]) => {
                self.deliver_by = least.split(',').next().and_then(|least| number(least, MAX_DIGITS));
            }
            ("FUTURERELEASE", [interval, until, ..]) => {
                let until = Some(until).filter(|until| is_date_time(until));
                self.future_release = number(interval, MAX_DIGITS).zip(until).map(|(interval, until)| {
                    FutureRelease { max_interval: interval, max_date_time: (*until).to_owned() }
                });
            }
            ("MT-PRIORITY", []) => self.mt_priority = Some(String::new()),
            ("MT-PRIORITY", [profile, ..]) if is_profile(profile) => {
                self.mt_priority = Some((*profile).to_owned());
            }
            _ => {}
        }
    }

    /// Returns what two upstreams have in common, with the narrower limits.
    pub fn common(&self, other: &Self) -> Self {
        let both = |one: &FutureRelease, other: &FutureRelease| FutureRelease {
            max_interval: one.max_interval.min(other.max_interval),
            max_date_time: one.max_date_time.clone().min(other.max_date_time.clone()),
        };
        Self {
            require_tls: self.require_tls && other.require_tls,
            limits: self.limits.smaller(other.limits),
            deliver_by: self.deliver_by.zip(other.deliver_by).map(|(one, other)| one.max(other)),
            future_release: self
                .future_release
                .as_ref()
                .zip(other.future_release.as_ref())
                .map(|(one, other)| both(one, other)),
            mt_priority: self.mt_priority.clone().filter(|_| self.mt_priority == other.mt_priority),
        }
    }

    /// The lines of an EHLO reply, except for LIMITS.
    pub fn keywords(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.require_tls {
            lines.push("REQUIRETLS".to_owned());
        }
        match self.deliver_by {
            Some(0) => lines.push("DELIVERBY".to_owned()),
            Some(least) => lines.push(format!("DELIVERBY {least}")),
            None => {}
        }
        if let Some(FutureRelease { max_interval, max_date_time }) = &self.future_release {
            lines.push(format!("FUTURERELEASE {max_interval} {max_date_time}"));
        }
        if let Some(profile) = &self.mt_priority {
            lines.push(format!("MT-PRIORITY {profile}").trim_end().to_owned());
        }
        lines
    }
}

/// `BY=` (RFC 2852 4): a time in seconds, a mode, and whether delivery is traced.
pub(super) fn by(text: &str) -> Option<String> {
    let (time, mode) = text.split_once(';')?;
    let digits = time.strip_prefix(['-', '+']).unwrap_or(time);
    let seconds = number(digits, MAX_DIGITS)?;
    let past = time.starts_with('-') || seconds == 0;
    match mode.to_ascii_uppercase().as_str() {
        // The time for a message to be returned cannot already be over.
        "R" | "RT" if past => None,
        "R" | "RT" | "N" | "NT" => Some(text.to_owned()),
        _ => None,
    }
}

/// Returns what is left of a `BY=` after `elapsed` seconds (RFC 2852 4: the time spent here is subtracted); `None` if
/// the message should have been returned by now. An expired time that only asks for a notice is negative.
pub(super) fn by_after(text: &str, elapsed: u64) -> Option<String> {
    const LEAST: i64 = -999_999_999;
    let (time, mode) = text.split_once(';')?;
    let left = time.parse::<i64>().ok()?.saturating_sub_unsigned(elapsed).max(LEAST);
    (left > 0 || !mode.starts_with(['R', 'r'])).then(|| format!("{left};{mode}"))
}

/// Returns the seconds within which a `BY=` wants the message delivered or returned; `None` if it only asks for a
/// notice.
pub(super) fn returns_within(by: &str) -> Option<u32> {
    let (time, mode) = by.split_once(';')?;
    mode.starts_with(['R', 'r']).then(|| time.parse().ok()).flatten()
}

/// Returns what is left of a `HOLDFOR=`; `None` if nothing is.
pub(super) fn hold_after(text: &str, elapsed: u64) -> Option<String> {
    let left = text.parse::<u64>().ok()?.checked_sub(elapsed)?;
    (left > 0).then(|| left.to_string())
}

/// Returns the time of a `HOLDUNTIL=`, or of the latest one offered; `None` if there is no such day.
pub(crate) fn moment(text: &str) -> Option<Timestamp> {
    Timestamp::parse_rfc3339(&text.to_ascii_uppercase()).ok()
}

/// `HOLDFOR=` (RFC 4865 3): seconds, not 0.
pub(super) fn hold_for(text: &str) -> Option<String> {
    (number(text, MAX_DIGITS).is_some() && !text.starts_with('0')).then(|| text.to_owned())
}

/// `HOLDUNTIL=` (RFC 4865 3, erratum 2040): a date and time of RFC 3339.
pub(super) fn hold_until(text: &str) -> Option<String> {
    is_date_time(text).then(|| text.to_owned())
}

/// `MT-PRIORITY=` (RFC 6710 5): -9 to 9.
pub(super) fn mt_priority(text: &str) -> Option<String> {
    let known = matches!(text.as_bytes(), [b'0'..=b'9'] | [b'-', b'1'..=b'9']);
    known.then(|| text.to_owned())
}

fn number(text: &str, digits: usize) -> Option<u32> {
    let right = (1..=digits).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_digit());
    right.then(|| text.parse().ok()).flatten()
}

fn is_profile(text: &str) -> bool {
    text.len() <= MAX_PROFILE
        && text
            .bytes()
            .all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.' | b'/'))
}

/// `date-time` of RFC 3339 5.6. Does not check whether the month has that day: nothing is computed with it here.
fn is_date_time(text: &str) -> bool {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00";
    let Some((front, rest)) = text.split_at_checked(SHAPE.len()) else { return false };
    let alike = |(shape, octet): (&u8, u8)| match shape {
        b'0' => octet.is_ascii_digit(),
        shape => octet.eq_ignore_ascii_case(shape),
    };
    let within = |at: usize, range: std::ops::RangeInclusive<u32>| {
        front.get(at..at + 2).and_then(|two| two.parse().ok()).is_some_and(|value| range.contains(&value))
    };
    SHAPE.iter().zip(front.bytes()).all(alike)
        && within(5, 1..=12)
        && within(8, 1..=31)
        && within(11, 0..=23)
        && within(14, 0..=59)
        && within(17, 0..=60)
        && is_offset(without_fraction(rest))
}

fn without_fraction(rest: &str) -> &str {
    match rest.strip_prefix('.') {
        Some(fraction) if fraction.starts_with(|c: char| c.is_ascii_digit()) => {
            fraction.trim_start_matches(|c: char| c.is_ascii_digit())
        }
        _ => rest,
    }
}

fn is_offset(text: &str) -> bool {
    match text.as_bytes() {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', hours @ .., b':', m1, m2] if hours.len() == 2 => {
            let hours = std::str::from_utf8(hours).ok().and_then(|hours| number(hours, 2));
            hours.is_some_and(|hours| hours < 24) && matches!((m1, m2), (b'0'..=b'5', b'0'..=b'9'))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(lines: &[&str]) -> Further {
        let mut further = Further::default();
        lines.iter().for_each(|line| further.add(line));
        further
    }

    #[test]
    fn what_time_leaves() {
        for (text, elapsed, left) in [
            ("120;RT", 0, Some("120;RT")), // RFC 2852 4
            ("120;R", 119, Some("1;R")),
            ("120;r", 120, None),
            ("120;RT", 1_000_000, None),
            ("120;N", 120, Some("0;N")),
            ("+120;nt", 130, Some("-10;nt")),
            ("-999999990;N", 100, Some("-999999999;N")), // nine digits
        ] {
            assert_eq!(by_after(text, elapsed).as_deref(), left, "{text} after {elapsed}");
            assert!(left.is_none_or(|left| by(left).is_some()), "{text} after {elapsed}");
        }
        for (text, elapsed, left) in
            [("60", 0, Some("60")), ("60", 59, Some("1")), ("60", 60, None), ("60", 99, None)]
        {
            assert_eq!(hold_after(text, elapsed).as_deref(), left, "{text} after {elapsed}"); // RFC 4865 4
        }
        for (text, within) in [("9;R", Some(9)), ("+9;rt", Some(9)), ("9;N", None), ("-9;NT", None)] {
            assert_eq!(returns_within(text), within, "{text}");
        }
    }

    #[test]
    fn what_is_offered_comes_back_as_it_was() {
        for line in [
            "REQUIRETLS",
            "DELIVERBY",
            "DELIVERBY 240",
            "FUTURERELEASE 604800 2026-12-24T12:00:00Z",
            "MT-PRIORITY",
            "MT-PRIORITY STANAG4406",
        ] {
            assert_eq!(
                offered(&[&line.to_ascii_lowercase().replace("t1", "T1").replace('z', "Z")]).keywords().len(),
                1
            );
            assert_eq!(offered(&[line]).keywords(), [line]);
        }
        for line in [
            "REQUIRETLS yes",
            "DELIVERBY soon",
            "DELIVERBY 1234567890",
            "FUTURERELEASE",
            "FUTURERELEASE 604800",
            "FUTURERELEASE x 2026-12-24T12:00:00Z",
            "FUTURERELEASE 1 tomorrow",
            "MT-PRIORITY (x)",
            "LIMITS RCPTMAX=1",
            "8BITMIME",
            "",
        ] {
            assert_eq!(offered(&[line]).keywords(), [""; 0], "{line}");
        }
    }

    #[test]
    fn limits() {
        for (line, shown) in [
            ("LIMITS RCPTMAX=20 MAILMAX=5", "LIMITS MAILMAX=5 RCPTMAX=20"), // RFC 9422 2
            ("limits rcptdomainmax=1", "LIMITS RCPTDOMAINMAX=1"),
            ("LIMITS RCPTMAX=0", ""),
            ("LIMITS RCPTMAX=-1", ""),
            ("LIMITS RCPTMAX=1000000", ""),
            ("LIMITS RCPTMAX", ""),
            ("LIMITS SIZEMAX=1 RCPTMAX=7", "LIMITS RCPTMAX=7"),
            ("LIMITS", ""),
        ] {
            assert_eq!(offered(&[line]).limits.to_string(), shown, "{line}");
        }
        let ours = Limits { rcpt_max: Some(1000), ..Limits::default() };
        let theirs = Limits { rcpt_max: Some(100), mail_max: Some(3), ..Limits::default() };
        assert_eq!(ours.smaller(theirs), theirs);
        assert_eq!(theirs.smaller(ours), theirs);
    }

    #[test]
    fn in_common() {
        let one = offered(&[
            "REQUIRETLS",
            "DELIVERBY 10",
            "FUTURERELEASE 60 2026-12-24T12:00:00Z",
            "MT-PRIORITY MIXER",
            "LIMITS RCPTMAX=20",
        ]);
        let other = offered(&["DELIVERBY", "FUTURERELEASE 90 2026-12-23T12:00:00Z", "MT-PRIORITY NSEP"]);
        let expected =
            offered(&["DELIVERBY 10", "FUTURERELEASE 60 2026-12-23T12:00:00Z", "LIMITS RCPTMAX=20"]);
        assert_eq!(one.common(&other), expected);
        assert_eq!(other.common(&one), expected);
        assert_eq!(one.common(&one), one);
    }

    #[test]
    fn parameters() {
        for (read, text, valid) in [
            (by as fn(&str) -> Option<String>, "120;R", true), // RFC 2852 4
            (by, "98;n", true),
            (by, "-5;N", true),
            (by, "+0;NT", true),
            (by, "999999999;RT", true),
            (by, "0;R", false),
            (by, "-5;R", false),
            (by, "1000000000;R", false),
            (by, "5", false),
            (by, "5;X", false),
            (by, "5;RTT", false),
            (by, ";R", false),
            (by, "--5;N", false),
            (hold_for, "1", true), // RFC 4865 3
            (hold_for, "999999999", true),
            (hold_for, "0", false),
            (hold_for, "01", false),
            (hold_for, "1000000000", false),
            (hold_for, "1h", false),
            (hold_until, "2026-12-24T12:00:00Z", true), // RFC 3339 5.6
            (hold_until, "2026-12-24t12:00:00.25z", true),
            (hold_until, "2026-12-24T12:00:00+01:00", true),
            (hold_until, "2026-12-24T12:00:00", false),
            (hold_until, "2026-12-24T12:00:00.Z", false),
            (hold_until, "2026-13-24T12:00:00Z", false),
            (hold_until, "2026-12-24T24:00:00Z", false),
            (hold_until, "2026-12-24T12:00:00+1:00", false),
            (hold_until, "2026-12-24T12:00:00+24:00", false),
            (hold_until, "2026-12-24 12:00:00Z", false),
            (hold_until, "\u{fc}026-12-24T12:00:00Z", false),
            (hold_until, "", false),
            (mt_priority, "0", true), // RFC 6710 5
            (mt_priority, "9", true),
            (mt_priority, "-9", true),
            (mt_priority, "-0", false),
            (mt_priority, "10", false),
            (mt_priority, "+1", false),
            (mt_priority, "", false),
        ] {
            assert_eq!(read(text), valid.then(|| text.to_owned()), "{text}");
        }
    }
}
