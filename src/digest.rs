//! The digest: while messages wait in the quarantine, the abuse desk gets a mail at each interval, and nothing expires
//! unannounced.
//!
//! A parked message is removed only if its time is over *and* a digest that announced it has been durable in the outbox
//! for at least [`Times::notice`], so that somebody had time to read it. `DATA_DIR/digests` records when digests were
//! sent and what they announced. It is written after the outbox: a crash in between sends the same digest twice, but
//! never lets anything expire unannounced. If it cannot be read, nothing counts as announced. What a digest announced is
//! one moment, before which everything was parked: so a digest is forgotten if the clock falls behind that moment.
//! Without `[notify] to`, or with `digest = "off"`, there are no digests, and expiry does not wait for them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use crate::clock::{Settled, Timestamp};
use crate::config::Config;
use crate::durable;

/// The name of the file in the data folder.
const NAME: &str = "digests";
/// The version that this Gatepost writes, and the newest that it reads.
const VERSION: u32 = 1;
/// How far ahead a digest looks (CONTRACT: what expires within three days).
pub const HORIZON: Duration = Duration::from_secs(3 * 86_400);
/// The longest notice: how long, at most, a digest must have been out before what it announced may expire.
const LONGEST_NOTICE: Duration = Duration::from_secs(86_400);

/// The longest time between two searches for what may expire; each goes by the time of an earlier one.
const LOOK: Duration = Duration::from_secs(20);
/// A digest whose neighbours are closer together than the lag divided by this is dropped.
const NEAR: u32 = 16;

/// When digests were sent and what they announced. Cheap to clone.
#[derive(Clone)]
pub struct Digests {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    times: Times,
    record: Record,
    /// Whether the file is not what the record is.
    unwritten: bool,
}

#[derive(Debug, Clone, Copy)]
struct Times {
    /// `[notify] digest`; `None`: no digests.
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

    /// Messages parked before this expire within [`HORIZON`]; a digest sent now announces them.
    fn horizon(self, now: Timestamp) -> Option<Timestamp> {
        self.expire_after.map(|age| now.after(HORIZON).before(age).min(now))
    }

    /// How long a digest must precede the first expiry by it: an interval, but at most a day.
    fn notice(self) -> Duration {
        self.every.unwrap_or_default().min(LONGEST_NOTICE)
    }

    /// How far the clock of a caller who asks what may expire can lag behind.
    fn lag(self) -> Duration {
        self.expire_after.map_or(Duration::ZERO, Settled::wait) + LOOK
    }
}

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    /// The digests that still matter, the oldest first.
    digests: Vec<Sent>,
}

/// One digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sent {
    at: Timestamp,
    /// All messages parked before this are announced; `null`: none.
    pub announced: Option<Timestamp>,
}

impl Sent {
    /// Returns whether a message that comes at `now` would count as announced by it. Then the clock is behind.
    fn would_announce(&self, now: Timestamp) -> bool {
        self.announced.is_some_and(|announced| now < announced)
    }
}

impl Digests {
    /// Reads the record of earlier digests; also returns why it could not be read, if so. See [`Self::forget`] for `now`.
    pub fn open(data_dir: &Path, config: &Config, now: Timestamp) -> (Self, Option<String>) {
        let path = data_dir.join(NAME);
        let (record, trouble) = match read(&path) {
            Ok(record) => (record, None),
            Err(why) => {
                (None, Some(format!("{}: {why}; nothing expires before the next digest", path.display())))
            }
        };
        let record = record.unwrap_or(Record { version: VERSION, digests: Vec::new() });
        let state = Mutex::new(State { times: Times::of(config), record, unwritten: false });
        let digests = Self { shared: Arc::new(Shared { path, state }) };
        digests.forget(now);
        (digests, trouble)
    }

    /// Forgets the digests that would count as having announced a message that comes at `now`: the clock is behind, and
    /// what is parked now was in none of them. Call it each second.
    pub fn forget(&self, now: Timestamp) {
        let mut state = self.state();
        let before = state.record.digests.len();
        state.record.digests.retain(|sent| !sent.would_announce(now));
        state.unwritten |= state.record.digests.len() != before;
    }

    /// Writes what changed, durably.
    ///
    /// # Errors
    /// It could not be written: it holds until the next start, and the next call writes it.
    pub async fn write(&self) -> Result<(), String> {
        let content = {
            let mut state = self.state();
            if !std::mem::take(&mut state.unwritten) {
                return Ok(());
            }
            serde_json::to_vec(&state.record)
        };
        let written = match content {
            Ok(content) => self.write_down(content).await,
            Err(error) => Err(error.to_string()),
        };
        written.inspect_err(|_| self.state().unwritten = true)
    }

    async fn write_down(&self, content: Vec<u8>) -> Result<(), String> {
        let shared = Arc::clone(&self.shared);
        let written = spawn_blocking(move || durable::write(&shared.path, &content)).await;
        written.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    /// Adopts the intervals of a new configuration.
    pub fn adopt(&self, config: &Config) {
        self.state().times = Times::of(config);
    }

    /// Whether a digest is due, given since when the oldest message has been waiting.
    pub fn is_due(&self, oldest: Timestamp, now: Timestamp) -> bool {
        let state = self.state();
        let Some(every) = state.times.every else { return false };
        let last = state.record.digests.last().map(|sent| sent.at);
        // A clock that was set back must not silence the digests, so one from the future does not count.
        let rested = last.is_none_or(|last| last > now || now.since(last) >= every);
        rested && now.since(oldest) >= every
    }

    /// Returns a digest of `now`, as it is to be noted once it is in the outbox.
    pub fn digest(&self, now: Timestamp) -> Sent {
        Sent { at: now, announced: self.state().times.horizon(now) }
    }

    /// Notes that a digest is durable in the outbox; [`Self::write`] makes that durable. Not before, so that a restart in
    /// between sends it twice; but a disk that takes no note does not have it sent again and again.
    pub fn sent(&self, digest: Sent) {
        let now = digest.at;
        let mut state = self.state();
        let State { times, record, unwritten } = &mut *state;
        let (notice, lag) = (times.notice(), times.lag());
        record.digests.retain(|sent| sent.at <= now);
        record.digests.push(digest);
        thin(&mut record.digests, lag / NEAR);
        // Of the digests old enough to expire by, even for a caller whose clock lags, the last one announced the most.
        let old = notice + lag;
        let settled = record.digests.iter().filter(|sent| now.since(sent.at) >= old).count();
        record.digests.drain(..settled.saturating_sub(1));
        *unwritten = true;
    }

    /// Messages parked before this may expire as far as digests are concerned; `None`: none may.
    pub fn released(&self, now: Timestamp) -> Option<Timestamp> {
        let state = self.state();
        if state.times.every.is_none() {
            return Some(now);
        }
        let notice = state.times.notice();
        let settled = state.record.digests.iter().filter(|sent| now.since(sent.at) >= notice);
        settled.filter_map(|sent| sent.announced).max()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code can leave the record half changed while holding the lock.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drops digests whose neighbours are closer together than this: the later neighbour announces the same soon after.
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

/// `None` if there is no file.
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
        open_at(folder, text, Timestamp::from_millis(u64::MAX))
    }

    fn open_at(folder: &Path, text: &str, now: Timestamp) -> (Digests, Option<String>) {
        let text = format!("[notify]\nto = [\"abuse@example.org\"]\n{text}");
        let config = Config::parse(&text, Path::new("config.toml"), "mail.example.org").unwrap();
        Digests::open(folder, &config, now)
    }

    async fn send(digests: &Digests, now: Timestamp) {
        digests.sent(digests.digest(now));
        digests.write().await.unwrap();
    }

    async fn look(digests: &Digests, now: Timestamp) -> Result<(), String> {
        digests.forget(now);
        digests.write().await
    }

    #[tokio::test]
    async fn one_an_interval_while_something_waits() {
        let folder = tempfile::tempdir().unwrap();
        let (digests, trouble) = open(folder.path(), "");
        assert_eq!(trouble, None);
        assert!(!digests.is_due(at(0), at(23)), "nobody waits for that long");
        assert!(digests.is_due(at(0), at(24)));
        send(&digests, at(24)).await;
        assert!(!digests.is_due(at(0), at(47)) && digests.is_due(at(0), at(48)));
        assert!(!digests.is_due(at(40), at(60)), "what waits now came later");
        // After a restart, and with another interval.
        let (digests, _) = open(folder.path(), "");
        assert!(!digests.is_due(at(0), at(47)) && digests.is_due(at(0), at(48)));
        let (digests, _) = open(folder.path(), "digest = \"12h\"");
        assert!(digests.is_due(at(0), at(36)));
        let (digests, _) = open(folder.path(), "digest = \"off\"");
        assert!(!digests.is_due(at(0), at(100)));
        // The clock had been ahead.
        let (digests, _) = open(folder.path(), "");
        send(&digests, at(9_000)).await;
        assert!(digests.is_due(at(0), at(48)));
    }

    #[tokio::test]
    async fn nothing_expires_that_was_not_announced_a_day_before() {
        let folder = tempfile::tempdir().unwrap();
        let (digests, _) = open(folder.path(), "");
        assert_eq!(digests.released(at(10_000)), None);
        // 30 days earlier, less the three days ahead.
        let announced = |hours| at(hours).before(27 * DAY);
        send(&digests, at(1_000)).await;
        assert_eq!(digests.released(at(1_023)), None, "nobody can have acted on it");
        assert_eq!(digests.released(at(1_024)), Some(announced(1_000)));
        send(&digests, at(1_024)).await;
        assert_eq!(digests.released(at(1_047)), Some(announced(1_000)));
        let (digests, _) = open(folder.path(), "");
        assert_eq!(digests.released(at(1_047)), Some(announced(1_000)), "over a restart");
        assert_eq!(digests.released(at(1_048)), Some(announced(1_024)));
        // A shorter `expire_after` does not extend what was announced with a longer one.
        let (digests, _) = open(folder.path(), "[quarantine]\nexpire_after = \"7d\"");
        assert_eq!(digests.released(at(1_048)), Some(announced(1_024)));
        // What is kept for less than three days is announced as soon as it is there.
        let (digests, _) = open(folder.path(), "[quarantine]\nexpire_after = \"1d\"");
        assert_eq!(digests.state().times.horizon(at(1_100)), Some(at(1_100)));
        let (digests, _) = open(folder.path(), "digest = \"off\"");
        assert_eq!(digests.released(at(5)), Some(at(5)));
    }

    /// What is parked while the clock is behind was in no digest that went out before.
    #[tokio::test]
    async fn a_digest_announces_nothing_that_came_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let (digests, _) = open(folder.path(), "");
        let announced = |hours| Some(at(hours).before(27 * DAY));
        send(&digests, at(1_000)).await;
        send(&digests, at(1_024)).await;
        // Behind, but not by so much that what comes now would count.
        look(&digests, at(1_024).before(27 * DAY)).await.unwrap();
        let file = folder.path().join(NAME);
        assert_eq!(digests.released(at(1_048)), announced(1_024));
        let before = std::fs::read(&file).unwrap();
        let (_, trouble) = open_at(folder.path(), "", at(1_000).before(27 * DAY));
        assert_eq!(
            (trouble, std::fs::read(&file).unwrap() == before),
            (None, true),
            "forgotten, not written"
        );
        look(&digests, at(1_000).before(27 * DAY)).await.unwrap();
        assert_eq!(digests.released(at(1_048)), announced(1_000), "the later one is forgotten");
        let (digests, _) = open(folder.path(), "");
        assert_eq!(digests.released(at(1_048)), announced(1_000), "over a restart too");
        // At the start, and while the disk takes nothing.
        let (digests, _) = open_at(folder.path(), "", Timestamp::default());
        assert_eq!(digests.released(at(1_048)), None);
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        look(&digests, at(1_048)).await.unwrap_err();
        digests.sent(digests.digest(at(1_048)));
        digests.write().await.unwrap_err();
        assert!(!digests.is_due(at(0), at(1_071)), "it was sent, although that cannot be noted");
        std::fs::remove_dir(&file).unwrap();
        digests.write().await.unwrap();
        let (digests, _) = open(folder.path(), "");
        assert_eq!(digests.released(at(1_072)), announced(1_048));
    }

    /// Callers go by an earlier time; things expire even if the interval is shorter than that lag.
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
                send(&digests, now).await;
                let kept = digests.state().record.digests.len();
                assert!(kept <= 20, "{settings}: {kept} digests");
                let then = now.before(lag);
                let released = digests.released(then);
                // What was announced an interval and a lag earlier, give or take the distance within which digests are
                // dropped.
                let announced = then.before(every + every + lag / NEAR);
                let expected = digests.state().times.horizon(announced).filter(|_| announced > begin);
                assert!(released >= expected, "{settings}, {number}: {released:?} for {expected:?}");
                assert!(
                    released <= digests.state().times.horizon(then.before(every)).max(latest),
                    "{settings}, {number}"
                );
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
            send(&digests, at(hour)).await;
        }
        assert!(digests.state().record.digests.len() <= 4, "{:?}", digests.state().record.digests);
        for content in ["{", "{\"version\":2,\"digests\":[]}", "{\"version\":1,\"digests\":[],\"more\":1}"] {
            std::fs::write(folder.path().join(NAME), content).unwrap();
            let (digests, trouble) = open(folder.path(), "");
            assert!(trouble.is_some_and(|why| why.contains("nothing expires before")), "{content}");
            assert_eq!(digests.released(at(10_000)), None);
        }
    }
}
