//! The messages that the practice MTA accepted, in bounded memory: the beginnings of the latest.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::smtp::header::{Collected, HeaderCollector};

/// The most letters kept.
const MAX_LETTERS: usize = 200;
/// The most octets kept of a letter.
pub(super) const MAX_KEPT: usize = 64 * 1_024;

/// An accepted message.
#[derive(Debug, Clone, Default)]
pub struct Letter {
    /// The queue id that the sender was told.
    pub queue_id: String,
    /// The user name that XCLIENT gave.
    pub login: Option<String>,
    /// `MAIL FROM:` without brackets.
    pub reverse_path: String,
    /// The accepted `RCPT TO:` addresses without brackets.
    pub recipients: Vec<String>,
    /// The message, or the beginning of a long one.
    pub content: Vec<u8>,
    /// The size of the whole message in octets.
    pub size: u64,
}

impl Letter {
    /// Whether one of its recipients has this address.
    pub fn is_to(&self, address: &str) -> bool {
        self.recipients.iter().any(|recipient| recipient.eq_ignore_ascii_case(address))
    }

    /// The value of a header field as written, unfolded.
    pub fn field(&self, name: &str) -> Option<String> {
        let mut collector = HeaderCollector::new(MAX_KEPT);
        match collector.push(&self.content) {
            Collected::TooLong => None,
            Collected::More | Collected::Complete { .. } => collector.finish().value(name),
        }
    }
}

/// The latest letters. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Letters {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    kept: Mutex<VecDeque<Letter>>,
    /// How many have arrived.
    total: watch::Sender<u64>,
}

impl Default for Letters {
    fn default() -> Self {
        Self { shared: Arc::new(Shared { kept: Mutex::default(), total: watch::Sender::new(0) }) }
    }
}

impl Letters {
    pub(super) fn add(&self, letter: Letter) {
        let mut kept = self.kept();
        if kept.len() == MAX_LETTERS {
            kept.pop_front();
        }
        kept.push_back(letter);
        // Under the lock, so that the number matches what is kept.
        self.shared.total.send_modify(|total| *total += 1);
    }

    /// How many have arrived, including those no longer kept.
    pub fn total(&self) -> u64 {
        *self.shared.total.borrow()
    }

    /// The latest kept letter for which `wanted` is true.
    pub fn find(&self, wanted: impl Fn(&Letter) -> bool) -> Option<Letter> {
        self.kept().iter().rev().find(|letter| wanted(letter)).cloned()
    }

    /// How many kept letters `wanted` is true for.
    pub fn count(&self, wanted: impl Fn(&Letter) -> bool) -> usize {
        self.kept().iter().filter(|letter| wanted(letter)).count()
    }

    /// Like [`Self::find`], but waits up to `patience` for it.
    pub async fn wait_for(&self, patience: Duration, wanted: impl Fn(&Letter) -> bool) -> Option<Letter> {
        let mut total = self.shared.total.subscribe();
        let arrived = async {
            loop {
                total.borrow_and_update();
                if let Some(letter) = self.find(&wanted) {
                    return Some(letter);
                }
                total.changed().await.ok()?;
            }
        };
        timeout(patience, arrived).await.ok().flatten()
    }

    /// The first kept letter that arrived after `seen` others, and how many had arrived with it. Waits for it.
    pub async fn next_after(&self, seen: u64) -> (Letter, u64) {
        let mut total = self.shared.total.subscribe();
        loop {
            {
                let kept = self.kept();
                let now = *total.borrow_and_update();
                let unseen = usize::try_from(now.saturating_sub(seen)).unwrap_or(usize::MAX);
                let index = kept.len().saturating_sub(unseen);
                if let Some(letter) = kept.get(index) {
                    return (letter.clone(), now - (kept.len() - index - 1) as u64);
                }
            }
            // The sender is ours and lives as long as this.
            let _ = total.changed().await;
        }
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Letter>> {
        self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(queue_id: &str) -> Letter {
        Letter { queue_id: queue_id.to_owned(), ..Letter::default() }
    }

    #[test]
    fn the_oldest_go() {
        let letters = Letters::default();
        for number in 0..=MAX_LETTERS {
            letters.add(letter(&number.to_string()));
        }
        assert_eq!((letters.total(), letters.count(|_| true)), (MAX_LETTERS as u64 + 1, MAX_LETTERS));
        assert!(letters.find(|letter| letter.queue_id == "0").is_none());
        assert!(letters.find(|letter| letter.queue_id == "1").is_some());
    }

    #[tokio::test]
    async fn waiting_ends() {
        let letters = Letters::default();
        let none = letters.wait_for(Duration::from_millis(1), |letter| letter.queue_id == "A");
        assert!(none.await.is_none());
        let (found, ()) =
            tokio::join!(letters.wait_for(Duration::from_secs(60), |letter| letter.queue_id == "A"), async {
                letters.add(letter("A"));
            });
        assert_eq!(found.unwrap().queue_id, "A");
    }

    #[tokio::test]
    async fn one_after_the_other() {
        let letters = Letters::default();
        for name in ["A", "B"] {
            letters.add(letter(name));
        }
        let (first, seen) = letters.next_after(0).await;
        let (second, seen_both) = letters.next_after(seen).await;
        assert_eq!((first.queue_id.as_str(), seen, second.queue_id.as_str(), seen_both), ("A", 1, "B", 2));
        for number in 0..2 * MAX_LETTERS {
            letters.add(letter(&number.to_string()));
        }
        // Letters no longer kept are skipped.
        let (oldest, seen) = letters.next_after(seen_both).await;
        assert_eq!((oldest.queue_id, seen), (MAX_LETTERS.to_string(), MAX_LETTERS as u64 + 3));
    }

    #[test]
    fn fields() {
        let content = b"Subject: a\r\n b\r\nTo: c\r\n\r\nFrom: body\r\n".to_vec();
        let letter = Letter { content, ..Letter::default() };
        assert_eq!(letter.field("subject").as_deref(), Some("a b"));
        assert_eq!(letter.field("From"), None);
    }
}
