//! Whose turn it is: in which order a try asks the upstream about the recipients; pure.
//!
//! The domains that earlier tries did not come to are asked about first, then those that were asked the longest ago, and
//! the same within a domain: one at which the upstream hangs up each time ends a try, and must not be first in the next. Silence
//! costs the whole time limit each time: what is left of a domain whose server gives no answer comes after all others,
//! and one at a time.

use std::collections::{HashMap, HashSet};

use crate::clock::Timestamp;
use crate::quarantine::Envelope;
use crate::quarantine::envelope::Recipient;
use crate::smtp::ForwardPath;

/// How many recipients are asked about in one write. Once the upstream is silent each of them may take as long as
/// `[upstream] timeout`, whatever the patience of the try.
const ASKED_AT_ONCE: usize = 4;

/// A recipient domain in lower case; `None` for `<postmaster>`.
type Domain = Option<String>;

/// The recipients that a try has not asked about yet, by their places in the envelope.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Those that are next, in order.
    left: Vec<(Domain, usize)>,
    /// Those of silent domains, in order.
    behind: Vec<(Domain, usize)>,
    /// Whether a domain answered when it was last asked; not here if it was not asked in this try.
    answers: HashMap<Domain, bool>,
}

impl Turns {
    /// The open recipients of `envelope`; `asked` tells when one was last asked.
    pub(super) fn of(envelope: &Envelope, asked: impl Fn(&Recipient) -> Option<Timestamp>) -> Self {
        let mut open: Vec<_> = envelope
            .pending()
            .map(|(place, recipient)| (domain(&recipient.forward_path), asked(recipient), place))
            .collect();
        let mut last: HashMap<Domain, Option<Timestamp>> = HashMap::new();
        for (domain, asked, _) in &open {
            let last = last.entry(domain.clone()).or_default();
            *last = (*last).max(*asked);
        }
        open.sort_unstable_by_key(|(domain, asked, place)| (last.get(domain).copied(), *asked, *place));
        Self { left: open.into_iter().map(|(domain, _, place)| (domain, place)).collect(), ..Self::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.left.is_empty() && self.behind.is_empty()
    }

    /// Takes out those that are asked about next, in one write: of a domain that has not answered yet, only one.
    pub(super) fn next(&mut self) -> Vec<usize> {
        if self.left.is_empty() && !self.behind.is_empty() {
            return vec![self.behind.remove(0).1];
        }
        let mut new = HashSet::new();
        let mut chosen = Vec::new();
        for (index, (domain, _)) in self.left.iter().enumerate() {
            if chosen.len() == ASKED_AT_ONCE {
                break;
            }
            if self.answers.contains_key(domain) || new.insert(domain) {
                chosen.push(index);
            }
        }
        let mut places: Vec<_> = chosen.into_iter().rev().map(|index| self.left.remove(index).1).collect();
        places.reverse();
        places
    }

    /// Notes whether there was an answer for this recipient; the last word about its domain counts.
    pub(super) fn heard(&mut self, recipient: &ForwardPath, answers: bool) {
        let domain = domain(recipient);
        if self.answers.insert(domain.clone(), answers).unwrap_or(true) == answers {
            return;
        }
        let (from, to) = match answers {
            true => (&mut self.behind, &mut self.left),
            false => (&mut self.left, &mut self.behind),
        };
        to.extend(from.extract_if(.., |(other, _)| *other == domain));
    }

    /// Returns those that the try did not come to.
    pub(super) fn rest(self) -> impl Iterator<Item = usize> {
        self.left.into_iter().chain(self.behind).map(|(_, place)| place)
    }
}

fn domain(recipient: &ForwardPath) -> Domain {
    recipient.domain().map(str::to_ascii_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quarantine::sample;

    /// The turns of these recipients, none of which was asked before.
    fn turns(recipients: &[&str]) -> (Turns, Vec<ForwardPath>) {
        let mut envelope = sample::envelope(sample::id(1), b"");
        let one = envelope.recipients.remove(0);
        let paths: Vec<_> = recipients.iter().map(|path| ForwardPath::parse(path).unwrap()).collect();
        let recipient = |path: &ForwardPath| Recipient { forward_path: path.clone(), ..one.clone() };
        envelope.recipients = paths.iter().map(recipient).collect();
        (Turns::of(&envelope, |_| None), paths)
    }

    #[test]
    fn silent_domains_come_after_all_others_and_one_at_a_time() {
        let (mut turns, paths) = turns(&["a@dead", "b@DEAD", "c@dead", "d@good", "e@good", "postmaster"]);
        assert_eq!(turns.next(), [0, 3, 5], "one of each domain");
        for (place, answers) in [(0, false), (3, true), (5, true)] {
            turns.heard(&paths[place], answers);
        }
        assert_eq!(turns.next(), [4]);
        assert_eq!(turns.next(), [1]);
        turns.heard(&paths[1], false);
        assert_eq!(turns.rest().collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn a_domain_that_answers_is_asked_about_several_at_once() {
        let (mut turns, paths) = turns(&["a@x", "b@x", "c@x", "d@x", "e@x", "f@x", "g@x", "h@x", "i@x"]);
        assert_eq!(turns.next(), [0]);
        turns.heard(&paths[0], true);
        assert_eq!(turns.next(), [1, 2, 3, 4]);
        turns.heard(&paths[1], false);
        assert_eq!(turns.next(), [5]);
        turns.heard(&paths[5], true);
        assert_eq!(turns.next(), [6, 7, 8], "it was slow, not silent");
        assert!(turns.is_empty() && turns.next().is_empty());
    }
}
