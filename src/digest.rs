//! The digest: while mail waits in the quarantine, one mail an interval to the abuse desk, and no expiry without it.
//!
//! A parked message is only removed once its time is over *and* a digest that announced it was durable in the outbox
//! at least [`Digests::notice`] before: somebody must have had the time to read it. When digests went out, and what they announced,
//! is in `DATA_DIR/digests`, written behind the outbox: a crash in between has the same digest sent twice, never an expiry
//! that nobody was told of. What cannot be read there counts for nothing announced. With no `[notify] to`, and with
//! `digest = "off"`, there are no digests, and expiry waits for none.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use crate::clock::{Settled, Timestamp};
use crate::config::Config;
use crate::durable;

/// The file's name in the data folder.
const NAME: &str = "digests";
/// The version that this Gatepost writes, and the newest that it reads.
const VERSION: u32 = 1;
/// How far ahead a digest looks (CONTRACT: what expires within three days).
pub const HORIZON: Duration = Duration::from_secs(3 * 86_400);
/// The longest time between a digest and the first expiry by it.
const LONGEST_NOTICE: Duration = Duration::from_secs(86_400);

/// What may expire is looked for at least as often; that look goes by an earlier look's time.
const LOOK: Duration = Duration::from_secs(20);
/// Two digests that such a share of the lag lies between are not told apart.
const NEAR: u32 = 16;

/// When digests went out and what they announced. Cheap to clone.
#[derive(Clone)]
pub struct Digests {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    times: Mutex<Times>,
    record: Mutex<Record>,
}

#[derive(Debug, Clone, Copy)]
struct Times {
    /// `[notify] digest`; `None`: there are none.
    every: Option<Duration>,
    expire_after: Option<Duration>,
}

impl Times {
    fn of(config: &Config) -> Self {
        Self {
            every: config.notify.digest.filter(|_| !config.notify.to.is_empty()),
            expire_after: config.quarantine.expire_after,
        }
    }
}

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    /// The oldest first; those that still matter.
    digests: Vec<Sent>,
}

/// One digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    at: Timestamp,
    /// It announced all messages that were parked before this; `null`: none.
    announced: Option<Timestamp>,
}

impl Digests {
    /// Reads what is known of earlier ones; beside it, why that could not be, where it could not.
    pub fn open(data_dir: &Path, config: &Config) -> (Self, Option<String>) {
        let path = data_dir.join(NAME);
        let (record, trouble) = match read(&path) {
            Ok(record) => (record, None),
            Err(why) => {
                (None, Some(format!("{}: {why}; nothing expires before the next digest", path.display())))
            }
        };
        let record = Mutex::new(record.unwrap_or(Record { version: VERSION, digests: Vec::new() }));
        let times = Mutex::new(Times::of(config));
        (Self { shared: Arc::new(Shared { path, times, record }) }, trouble)
    }

    /// As often as this says from now on.
    pub fn adopt(&self, config: &Config) {
        *self.shared.times.lock().unwrap_or_else(PoisonError::into_inner) = Times::of(config);
    }

    fn times(&self) -> Times {
        *self.shared.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a digest is due, of messages of which the oldest waits since then.
    pub fn is_due(&self, oldest: Timestamp, now: Timestamp) -> bool {
        let Some(every) = self.times().every else { return false };
        let last = self.record().digests.last().map(|sent| sent.at);
        // A clock that went back must not silence it: a digest of the future is as good as none.
        let rested = last.is_none_or(|last| last > now || now.since(last) >= every);
        rested && now.since(oldest) >= every
    }

    /// Messages parked before this expire within [`HORIZON`], and a digest of now announces them.
    pub fn horizon(&self, now: Timestamp) -> Option<Timestamp> {
        self.times().expire_after.map(|age| now.after(HORIZON).before(age).min(now))
    }

    /// A digest of `now` is durable in the outbox, and this when it returns.
    ///
    /// # Errors
    /// It could not be noted: the same digest goes out again, and nothing expires by this one.
    pub async fn sent(&self, now: Timestamp) -> Result<(), String> {
        let mut record = self.record().clone();
        {
            let notice = self.notice();
            record.digests.retain(|sent| sent.at <= now);
            record.digests.push(Sent { at: now, announced: self.horizon(now) });
            thin(&mut record.digests, self.lag() / NEAR);
            // Of those that are old enough to expire by, also for whom it is earlier, the last says the most.
            let old = notice + self.lag();
            let settled = record.digests.iter().filter(|sent| now.since(sent.at) >= old).count();
            record.digests.drain(..settled.saturating_sub(1));
        }
        let content = serde_json::to_vec(&record).unwrap_or_default();
        let shared = Arc::clone(&self.shared);
        let written = spawn_blocking(move || durable::write(&shared.path, &content)).await;
        written.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        *self.record() = record;
        Ok(())
    }

    /// Messages parked before this may expire, as far as it depends on digests; `None`: none may.
    pub fn released(&self, now: Timestamp) -> Option<Timestamp> {
        if self.times().every.is_none() {
            return Some(now);
        }
        let notice = self.notice();
        let record = self.record();
        let settled = record.digests.iter().filter(|sent| now.since(sent.at) >= notice);
        settled.filter_map(|sent| sent.announced).max()
    }

    /// How long before the first expiry by it a digest goes out: an interval, or a day where that is longer.
    fn notice(&self) -> Duration {
        self.times().every.unwrap_or_default().min(LONGEST_NOTICE)
    }

    /// How much earlier it may be for whom asks what may expire.
    fn lag(&self) -> Duration {
        self.times().expire_after.map_or(Duration::ZERO, Settled::wait) + LOOK
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        // No code that holds it can leave it half changed.
        self.shared.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leaves out what stands between two that are nearer to each other than this: the later one says the same soon after.
fn thin(digests: &mut Vec<Sent>, near: Duration) {
    let mut kept: Vec<Sent> = Vec::with_capacity(digests.len());
    for (index, sent) in digests.iter().enumerate() {
        let neighbours = kept.last().zip(digests.get(index + 1));
        if neighbours.is_none_or(|(before, after)| after.at.since(before.at) >= near) {
            kept.push(*sent);
        }
    }
    *digests = kept;
}

/// `None` where there is no file.
fn read(path: &Path) -> Result<Option<Record>, String> {
    let octets = match std::fs::read(path) {
        Ok(octets) => octets,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let record: Record = serde_json::from_slice(&octets).map_err(|error| error.to_string())?;
    if record.version > VERSION {
        return Err(format!("it has version {}; this Gatepost knows up to {VERSION}", record.version));
    }
    Ok(Some(record))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(hours: u32) -> Timestamp {
        Timestamp::from_millis(1_795_536_000_000).after(hours * Duration::from_secs(3_600))
    }

    fn open(folder: &Path, text: &str) -> (Digests, Option<String>) {
        let text = format!("[notify]\nto = [\"abuse@example.org\"]\n{text}");
        let config = Config::parse(&text, Path::new("config.toml"), "mail.example.org").unwrap();
        Digests::open(folder, &config)
    }

    #[tokio::test]
    async fn one_an_interval_while_something_waits() {
        let folder = tempfile::tempdir().unwrap();
        let (digests, trouble) = open(folder.path(), "");
        assert_eq!(trouble, None);
        assert!(!digests.is_due(at(0), at(23)), "nobody waits for that long");
        assert!(digests.is_due(at(0), at(24)));
        digests.sent(at(24)).await.unwrap();
        assert!(!digests.is_due(at(0), at(47)) && digests.is_due(at(0), at(48)));
        assert!(!digests.is_due(at(40), at(60)), "what waits now came later");
        // Over restarts; and with another interval.
        let (digests, _) = open(folder.path(), "");
        assert!(!digests.is_due(at(0), at(47)) && digests.is_due(at(0), at(48)));
        let (digests, _) = open(folder.path(), "digest = \"12h\"");
        assert!(digests.is_due(at(0), at(36)));
        let (digests, _) = open(folder.path(), "digest = \"off\"");
        assert!(!digests.is_due(at(0), at(100)));
        // The clock had been ahead.
        let (digests, _) = open(folder.path(), "");
        digests.sent(at(9_000)).await.unwrap();
        assert!(digests.is_due(at(0), at(48)));
    }

    #[tokio::test]
    async fn nothing_expires_that_was_not_announced_a_day_before() {
        let folder = tempfile::tempdir().unwrap();
        let (digests, _) = open(folder.path(), "");
        assert_eq!(digests.released(at(10_000)), None);
        // 30 days before, and three ahead.
        let announced = |hours| at(hours).before(27 * DAY);
        digests.sent(at(1_000)).await.unwrap();
        assert_eq!(digests.released(at(1_023)), None, "nobody can have acted on it");
        assert_eq!(digests.released(at(1_024)), Some(announced(1_000)));
        digests.sent(at(1_024)).await.unwrap();
        assert_eq!(digests.released(at(1_047)), Some(announced(1_000)));
        let (digests, _) = open(folder.path(), "");
        assert_eq!(digests.released(at(1_047)), Some(announced(1_000)), "over a restart");
        assert_eq!(digests.released(at(1_048)), Some(announced(1_024)));
        // A shorter life does not take what was announced with a longer one for announced.
        let (digests, _) = open(folder.path(), "[quarantine]\nexpire_after = \"7d\"");
        assert_eq!(digests.released(at(1_048)), Some(announced(1_024)));
        // What lives for less than three days is announced as soon as it is there.
        let (digests, _) = open(folder.path(), "[quarantine]\nexpire_after = \"1d\"");
        assert_eq!(digests.horizon(at(1_100)), Some(at(1_100)));
        let (digests, _) = open(folder.path(), "digest = \"off\"");
        assert_eq!(digests.released(at(5)), Some(at(5)));
    }

    /// Who asks goes by the time of a while ago: an interval that is shorter than that while has things expire as well.
    #[tokio::test]
    async fn short_intervals_release_too() {
        let folder = tempfile::tempdir().unwrap();
        let begin = Timestamp::from_millis(1_795_536_000_000);
        let second = Duration::from_secs(1);
        for (settings, every, lag) in [
            ("digest = \"2s\"\n[quarantine]\nexpire_after = \"4s\"", 2 * second, 15 * second),
            ("digest = \"5m\"", 300 * second, 3_600 * second),
            ("digest = \"45m\"", 2_700 * second, 3_600 * second),
            ("", 86_400 * second, 3_600 * second),
        ] {
            let (digests, _) = open(folder.path(), settings);
            let mut latest = None;
            for number in 0..400 {
                let now = begin.after(number * every);
                digests.sent(now).await.unwrap();
                let kept = digests.record().digests.len();
                assert!(kept <= 20, "{settings}: {kept} digests");
                let then = now.before(lag);
                let released = digests.released(then);
                // What was announced an interval and a while before, give or take what two are not told apart by.
                let announced = then.before(every + every + lag / NEAR);
                let expected = digests.horizon(announced).filter(|_| announced > begin);
                assert!(released >= expected, "{settings}, {number}: {released:?} for {expected:?}");
                assert!(released <= digests.horizon(then.before(every)).max(latest), "{settings}, {number}");
                latest = released;
            }
            std::fs::remove_file(folder.path().join(NAME)).unwrap();
        }
    }

    #[tokio::test]
    async fn the_file_stays_small_and_a_broken_one_announces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (digests, _) = open(folder.path(), "digest = \"1h\"");
        for hour in 0..100 {
            digests.sent(at(hour)).await.unwrap();
        }
        assert!(digests.record().digests.len() <= 4, "{:?}", digests.record().digests);
        for content in ["{", "{\"version\":2,\"digests\":[]}", "{\"version\":1,\"digests\":[],\"more\":1}"] {
            std::fs::write(folder.path().join(NAME), content).unwrap();
            let (digests, trouble) = open(folder.path(), "");
            assert!(trouble.is_some_and(|why| why.contains("nothing expires before")), "{content}");
            assert_eq!(digests.released(at(10_000)), None);
        }
    }
}
