//! How fast mail data comes: a slow client takes up a session, and with a long message an upstream connection as well.
//!
//! Only the time spent waiting for the client counts. Pure: time is an argument.

use std::time::Duration;

/// How long a client is watched before each judgement.
const SPAN: Duration = Duration::from_secs(5 * 60);

/// The pace of one message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Octets that must come in a [`SPAN`].
    least: u64,
    octets: u64,
    waited: Duration,
}

impl Pace {
    /// Requires at least `min_rate` octets a second; 0 accepts any pace.
    pub(super) fn new(min_rate: u32) -> Self {
        Self { least: u64::from(min_rate) * SPAN.as_secs(), octets: 0, waited: Duration::ZERO }
    }

    /// How long to wait until the next judgement; `None` if there is none.
    pub(super) fn patience(&self) -> Option<Duration> {
        (self.least > 0).then(|| SPAN.saturating_sub(self.waited))
    }

    /// Records octets that came after a wait; `false` if the client is too slow.
    pub(super) fn keeps_up(&mut self, octets: usize, waited: Duration) -> bool {
        self.octets = self.octets.saturating_add(octets as u64);
        self.waited += waited;
        if self.waited < SPAN {
            return true;
        }
        let enough = self.octets >= self.least;
        (self.octets, self.waited) = (0, Duration::ZERO);
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many reads of `octets` after `wait` seconds each are tolerated, up to `tries`.
    fn borne(min_rate: u32, octets: usize, wait: u64, tries: usize) -> usize {
        let mut pace = Pace::new(min_rate);
        (0..tries).take_while(|_| pace.keeps_up(octets, Duration::from_secs(wait))).count()
    }

    #[test]
    fn who_is_too_slow() {
        for (rate, octets, wait, expected) in [
            (100, 100, 1, 1_000),
            (100, 99, 1, 299),
            (100, 1, 299, 1),
            // In bursts.
            (100, 29_999, 299, 1_000),
            (100, 29_999, 300, 0),
            (1, 300, 300, 1_000),
            // Off.
            (0, 0, 299, 1_000),
        ] {
            assert_eq!(borne(rate, octets, wait, 1_000), expected, "{rate} {octets} {wait}");
        }
    }

    #[test]
    fn each_span_is_judged_for_itself() {
        let mut pace = Pace::new(100);
        assert!(pace.keeps_up(10_000_000, SPAN));
        assert_eq!(pace.patience(), Some(SPAN));
        assert!(pace.keeps_up(0, SPAN / 2));
        assert_eq!(pace.patience(), Some(SPAN / 2));
        assert!(!pace.keeps_up(29_999, SPAN / 2), "what came before does not help");
        assert_eq!(Pace::new(0).patience(), None);
    }
}
