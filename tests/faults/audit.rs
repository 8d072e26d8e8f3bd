//! After each round: is every message that was acknowledged in one place, and every account blocked that must be?

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde_json::Value;

use crate::support::gatepost::Gatepost;
use crate::support::scripted::Scripted;
use crate::support::{PATIENCE, wait_for};
use crate::world::World;

/// What is on its way from one place to the other gets so long to arrive.
const UNDER_WAY: Duration = Duration::from_secs(4);

/// How often a fault may have one message sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    Never,
    /// The process died between the upstream's 250 and the note of it.
    Once,
    /// The 250 itself was lost, and the message tried again, as often as that was.
    Often,
}

/// Where messages were found.
#[derive(Default)]
pub(crate) struct Books {
    /// How often the upstream took each message.
    taken: HashMap<String, usize>,
    /// How often each was sent again after a fault that may do that.
    forgiven: HashMap<String, usize>,
    notices: Vec<String>,
}

impl Books {
    fn read(&mut self, upstream: &Scripted) {
        for data in upstream.collect_taken() {
            let text = String::from_utf8_lossy(&data);
            match text.split("\nSubject: ").nth(1).filter(|_| text.contains("@client.example>")) {
                Some(rest) => *self.taken.entry(rest.lines().next().unwrap().to_owned()).or_default() += 1,
                None => self.notices.push(text.into_owned()),
            }
        }
    }

    /// In how many places a message is.
    fn places(&self, id: &str, parked: &HashSet<String>) -> usize {
        self.taken.get(id).copied().unwrap_or(0) + usize::from(parked.contains(id))
    }

    /// And in how many it may be.
    fn allowed(&self, id: &str) -> usize {
        1 + self.forgiven.get(id).copied().unwrap_or(0)
    }

    pub(crate) fn twice(&self) -> usize {
        self.taken.values().filter(|times| **times > 1).count()
    }
}

impl World {
    /// `again`: how often a message may have been sent once more.
    pub(crate) fn audit(&mut self, context: &str, again: Again) {
        // First the quarantine, then the upstream: what moves meanwhile is in one of them.
        let parked = parked(&self.gatepost);
        self.books.read(&self.upstream);
        let promises = self.promises.lock().unwrap();
        let lost: Vec<_> =
            promises.acknowledged.keys().filter(|id| self.books.places(id, &parked) == 0).collect();
        assert!(lost.is_empty(), "{context}: acknowledged and lost: {lost:?}\n{}", self.gatepost.log_text());
        let too_often = |parked: &HashSet<String>, books: &Books| -> Vec<(String, usize)> {
            let ids = promises.acknowledged.keys();
            let more = ids.map(|id| (id.clone(), books.places(id, parked).saturating_sub(books.allowed(id))));
            more.filter(|(_, more)| *more > 0).collect()
        };
        let mut twice = too_often(&parked, &self.books);
        if !twice.is_empty() {
            let (gatepost, upstream, books) = (&self.gatepost, &self.upstream, &mut self.books);
            wait_for(UNDER_WAY, || {
                let mut parked = self::parked(gatepost);
                for rest in remainders(gatepost) {
                    parked.remove(&rest);
                }
                books.read(upstream);
                twice = too_often(&parked, books);
                twice.is_empty().then_some(())
            });
        }
        for (id, more) in twice {
            assert!(
                again == Again::Often || again == Again::Once && more == 1,
                "{context}: {id} is in {more} places too many\n{}",
                self.gatepost.log_text()
            );
            *self.books.forgiven.entry(id).or_default() += more;
        }
        let status = self.gatepost.json_lines(&["status"]);
        let blocked: HashSet<&str> = status
            .iter()
            .filter(|object| object["state"] == "blocked")
            .map(|object| object["account"].as_str().unwrap())
            .collect();
        let forgotten: Vec<_> =
            promises.blocked.iter().filter(|account| !blocked.contains(account.as_str())).collect();
        assert!(
            forgotten.is_empty(),
            "{context}: blocks forgotten: {forgotten:?}\n{}",
            self.gatepost.log_text()
        );
        // Where the disk was full it is tried again each second.
        let mut unlisted = Vec::new();
        let listed = wait_for(UNDER_WAY, || {
            let list = std::fs::read_to_string(self.gatepost.data_dir().join("blocked")).unwrap();
            let listed: HashSet<&str> = list.lines().filter_map(|line| line.split(' ').next()).collect();
            unlisted = promises
                .blocked
                .iter()
                .filter(|account| !listed.contains(account.as_str()))
                .cloned()
                .collect();
            unlisted.is_empty().then_some(())
        });
        assert!(listed.is_some(), "{context}: not in the list: {unlisted:?}\n{}", self.gatepost.log_text());
        drop(promises);
        self.expect_no_panic(context);
    }

    /// The abuse desk has heard of every block by the limit.
    pub(crate) fn expect_notices(&mut self) {
        // What waits is tried at each start.
        self.gatepost.terminate();
        self.gatepost.start();
        let by_limit = self.promises.lock().unwrap().by_limit.clone();
        let mut missing = Vec::new();
        let told = wait_for(PATIENCE, || {
            self.books.read(&self.upstream);
            let all = self.books.notices.join("\n");
            missing =
                by_limit.iter().filter(|account| !all.contains(&format!("{account},"))).cloned().collect();
            missing.is_empty().then_some(())
        });
        assert!(told.is_some(), "nobody was told of {missing:?}");
    }
}

/// Subjects of what is parked.
/// What is left of messages that went to one recipient and wait for the answers about others: for each of these it is in one place.
fn remainders(gatepost: &Gatepost) -> HashSet<String> {
    let parked = gatepost.parked();
    let releasing = parked.iter().filter(|object| object["state"] == "releasing");
    let is_delivered_in_part = |object: &&Value| {
        let name = format!("quarantine/{}.envelope", object["id"].as_str().unwrap());
        // It may be gone meanwhile: then it is counted where it went.
        let Ok(text) = std::fs::read_to_string(gatepost.data_dir().join(name)) else { return false };
        let envelope: Value = serde_json::from_str(&text).unwrap();
        envelope["recipients"].as_array().unwrap().iter().any(|one| one["state"]["state"] == "delivered")
    };
    releasing
        .filter(is_delivered_in_part)
        .map(|object| object["subject"].as_str().unwrap().to_owned())
        .collect()
}

fn parked(gatepost: &Gatepost) -> HashSet<String> {
    let parked = gatepost.parked();
    let unreadable: Vec<_> = parked.iter().filter(|object| object["state"] == "unreadable").collect();
    assert!(unreadable.is_empty(), "{unreadable:?}");
    parked.iter().map(|object| object["subject"].as_str().unwrap().to_owned()).collect()
}
