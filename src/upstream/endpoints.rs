//! Decides which upstream is asked next, and what all of them offer together.
//!
//! They take turns; one that failed is left out for [`LEFT_OUT`], unless all of them did. Knows no connections, only
//! how the attempts to connect, XCLIENT, and the first MAIL on each connection, went.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::time::Instant;

use crate::account::Account;
use crate::net::address::Endpoint;
use crate::smtp::Extensions;

/// How long an upstream is left out that could not be reached, was silent at MAIL or DATA, or hung up at MAIL, or
/// failed at XCLIENT, of several clients (CONTRACT).
pub(super) const LEFT_OUT: Duration = Duration::from_secs(30);

pub(super) struct Endpoints {
    list: Vec<Endpoint>,
    state: Mutex<State>,
    /// What all reachable upstreams offer.
    pub(super) common: ArcSwapOption<Extensions>,
}

struct State {
    /// The index of the upstream whose turn it is.
    next: usize,
    /// One entry for each upstream of `list`.
    known: Vec<Known>,
}

/// What is known of one upstream.
#[derive(Debug, Clone, Default)]
struct Known {
    /// The extensions in its last EHLO reply.
    offers: Option<Extensions>,
    /// When it failed, unless it has answered since.
    failed: Option<Instant>,
    /// The account at whose MAIL it last hung up, or at whose XCLIENT it failed, and when; cleared by any reply to MAIL.
    hung_up: Option<(Account, Instant)>,
}

impl Known {
    fn is_in(&self, now: Instant) -> bool {
        self.failed.is_none_or(|at| at + LEFT_OUT <= now)
    }
}

impl Endpoints {
    pub(super) fn new(list: Vec<Endpoint>) -> Self {
        let known = vec![Known::default(); list.len()];
        Self { list, state: Mutex::new(State { next: 0, known }), common: ArcSwapOption::empty() }
    }

    pub(super) fn count(&self) -> usize {
        self.list.len()
    }

    pub(super) fn get(&self, index: usize) -> Option<&Endpoint> {
        self.list.get(index)
    }

    /// The upstreams to try for one connection, in this order: all that are not left out, else the one that failed
    /// longest ago.
    pub(super) fn candidates(&self, now: Instant) -> Vec<usize> {
        let mut state = self.lock();
        let count = state.known.len();
        let first = state.next;
        state.next = (first + 1) % count.max(1);
        let is_in = |index: &usize| state.known.get(*index).is_some_and(|known| known.is_in(now));
        let candidates: Vec<usize> = (first..count).chain(0..first).filter(is_in).collect();
        if !candidates.is_empty() {
            return candidates;
        }
        let failed = state.known.iter().enumerate().min_by_key(|(_, known)| known.failed);
        failed.map(|(index, _)| index).into_iter().collect()
    }

    /// Notes that it is ready for MAIL and what it offers.
    pub(super) fn answered(&self, index: usize, offers: &Extensions) {
        let mut state = self.lock();
        let Some(known) = state.known.get_mut(index) else { return };
        if known.failed.take().is_none() && known.offers.as_ref() == Some(offers) {
            return;
        }
        known.offers = Some(offers.clone());
        self.compare(&state);
    }

    /// Notes that it could not be reached, or did not answer.
    pub(super) fn failed(&self, index: usize, now: Instant) {
        let mut state = self.lock();
        let Some(known) = state.known.get_mut(index) else { return };
        known.failed = Some(now);
        self.compare(&state);
    }

    /// Whether an upstream other than `beside` is not left out.
    pub(super) fn any_in(&self, now: Instant, beside: &[usize]) -> bool {
        let state = self.lock();
        state.known.iter().enumerate().any(|(index, known)| known.is_in(now) && !beside.contains(&index))
    }

    /// Notes that it hung up at this client's MAIL, or did not answer its XCLIENT properly. The client may be the cause; a
    /// second one without a reply to any MAIL in between means that it is the upstream.
    pub(super) fn hung_up(&self, index: usize, client: Account, now: Instant) {
        let mut state = self.lock();
        let Some(known) = state.known.get_mut(index) else { return };
        match &known.hung_up {
            Some((other, at)) if *other != client && *at + LEFT_OUT > now => known.failed = Some(now),
            _ => {}
        }
        known.hung_up = Some((client, now));
        self.compare(&state);
    }

    /// Notes a reply to MAIL.
    pub(super) fn replied(&self, index: usize) {
        // A single upstream is never left out.
        if self.list.len() > 1
            && let Some(known) = self.lock().known.get_mut(index)
        {
            known.hung_up = None;
        }
    }

    /// Updates `common`. While no upstream can be reached, the last known offers of all of them count; otherwise
    /// clients would be offered less for no reason.
    fn compare(&self, state: &State) {
        let common = |all: bool| {
            let reachable = state.known.iter().filter(|known| all || known.failed.is_none());
            let offers = reachable.filter_map(|known| known.offers.as_ref());
            offers.cloned().reduce(|one, other| one.common(&other))
        };
        let common = common(false).or_else(|| common(true));
        if self.common.load().as_deref() != common.as_ref() {
            self.common.store(common.map(Arc::new));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No panic can happen in the middle of a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::address::Address;

    fn endpoints(count: u16) -> Endpoints {
        let endpoint = |port| Endpoint {
            address: Address::Tcp { host: "mail.example.org".to_owned(), port },
            tls_name: String::new(),
        };
        Endpoints::new((0..count).map(endpoint).collect())
    }

    #[test]
    fn in_turn_and_the_failed_left_out_for_a_while() {
        let three = endpoints(3);
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let all = u64::try_from(LEFT_OUT.as_millis()).unwrap();
        assert_eq!(three.candidates(start), [0, 1, 2]);
        assert_eq!(three.candidates(start), [1, 2, 0]);
        three.failed(2, start);
        assert_eq!(three.candidates(start), [0, 1]);
        assert_eq!(three.candidates(start), [0, 1]);
        assert_eq!(three.candidates(after(all - 1)), [1, 0]);
        three.failed(0, after(all - 1));
        assert_eq!(three.candidates(after(all)), [2, 1]);
        // all have failed: the least recent one
        three.failed(2, after(all));
        three.failed(1, after(all + 1));
        assert_eq!(three.candidates(after(all + 1)), [0]);
        assert_eq!(three.candidates(after(all + 1)), [0]);
        three.failed(0, after(all + 2));
        assert_eq!(three.candidates(after(all + 2)), [2]);
        // an answer ends it at once
        three.answered(1, &Extensions::default());
        assert_eq!(three.candidates(after(all + 2)), [1]);
        let one = endpoints(1);
        one.failed(0, start);
        assert_eq!(one.candidates(start), [0]);
    }

    #[test]
    fn who_hangs_up_at_the_mail_of_two_is_left_out() {
        let (anna, ben) = (|| Account::user("anna").unwrap(), || Account::user("ben").unwrap());
        let start = Instant::now();
        let later = start + LEFT_OUT;
        let before_that = later - Duration::from_millis(1);
        let mail = |by: Account, now: Instant| Some((by, now));
        // MAILs at which it hung up (`None`: one that it answered), and whether it is in afterwards
        let rows = [
            (vec![mail(anna(), start)], true),
            (vec![mail(anna(), start), mail(anna(), start), mail(anna(), start)], true),
            (vec![mail(anna(), start), mail(ben(), before_that)], false),
            (vec![mail(anna(), start), mail(ben(), later)], true),
            (vec![mail(anna(), start), None, mail(ben(), start)], true),
            (vec![mail(anna(), start), None, mail(ben(), start), mail(anna(), start)], false),
        ];
        for (mails, is_in) in rows {
            let two = endpoints(2);
            let last = mails.iter().flatten().last().map_or(start, |(_, now)| *now);
            for mail in mails.clone() {
                match mail {
                    Some((by, now)) => two.hung_up(0, by, now),
                    None => two.replied(0),
                }
            }
            assert_eq!(two.candidates(last).contains(&0), is_in, "{mails:?}");
        }
    }

    #[test]
    fn what_all_offer_that_can_be_reached() {
        let offers = |smtputf8, dsn| Extensions { smtputf8, dsn, ..Extensions::default() };
        let known = |two: &Endpoints| two.common.load_full().map(|common| (common.smtputf8, common.dsn));
        let two = endpoints(2);
        two.failed(0, Instant::now());
        assert_eq!(known(&two), None);
        two.answered(0, &offers(true, true));
        assert_eq!(known(&two), Some((true, true)));
        two.answered(1, &offers(false, true));
        assert_eq!(known(&two), Some((false, true)));
        two.failed(1, Instant::now());
        assert_eq!(known(&two), Some((true, true)));
        // none is reachable: what was known of all
        two.failed(0, Instant::now());
        assert_eq!(known(&two), Some((false, true)));
        two.answered(1, &offers(false, false));
        assert_eq!(known(&two), Some((false, false)));
    }
}
