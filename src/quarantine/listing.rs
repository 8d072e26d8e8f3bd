//! Pages of parked messages: the index finds candidates, the envelopes decide the rest.

use std::sync::Arc;

use super::envelope::Envelope;
use super::shared::{Shared, blocking};
use super::terms::{Entry, Filter, SpoolError};
use crate::id::QuarantineId;

/// How many envelopes are read in one visit to a blocking thread.
const BATCH: usize = 256;

/// The parts of a filter that need the envelope, in lower case.
#[derive(Debug, Clone)]
struct Contents {
    sender: Option<String>,
    subject: Option<String>,
}

impl Contents {
    fn of(filter: &Filter) -> Self {
        let lower = |part: &Option<String>| part.as_ref().map(|part| part.to_lowercase());
        Self { sender: lower(&filter.sender), subject: lower(&filter.subject) }
    }

    fn is_empty(&self) -> bool {
        self.sender.is_none() && self.subject.is_none()
    }

    fn match_envelope(&self, envelope: &Envelope) -> bool {
        let contains = |text: &str, part: &Option<String>| {
            part.as_ref().is_none_or(|part| text.to_lowercase().contains(part.as_str()))
        };
        contains(envelope.reverse_path.as_str(), &self.sender)
            && contains(envelope.subject.as_deref().unwrap_or_default(), &self.subject)
    }
}

/// Returns a page of messages after `after`, oldest first.
pub(super) async fn page(
    shared: &Arc<Shared>,
    filter: &Filter,
    mut after: Option<QuarantineId>,
    limit: usize,
) -> Vec<Entry> {
    let contents = Contents::of(filter);
    let mut page = Vec::new();
    while page.len() < limit {
        let left = limit - page.len();
        let count = if contents.is_empty() { left.min(BATCH) } else { BATCH };
        let ids = shared.index().page(filter.account.as_ref(), filter.since, after, count);
        let Some(last) = ids.last() else { break };
        after = Some(*last);
        let (shared, contents) = (Arc::clone(shared), contents.clone());
        let read = blocking(move || {
            let entries = ids.into_iter().filter_map(|id| entry(&shared, id, &contents));
            entries.take(left).collect::<Vec<_>>()
        });
        match read.await {
            Ok(entries) => page.extend(entries),
            Err(_) => break,
        }
    }
    page
}

/// Returns the entry of a message; `None` if it does not match or is gone. An unreadable message matches no sender and
/// no subject.
fn entry(shared: &Shared, id: QuarantineId, contents: &Contents) -> Option<Entry> {
    let unreadable = |cause| {
        let size = shared.index().size(id)?;
        contents.is_empty().then_some(Entry::Unreadable { id, size, cause })
    };
    match shared.load(id) {
        Ok(envelope) => contents.match_envelope(&envelope).then(|| Entry::Message(Box::new(envelope))),
        Err(_) if shared.is_going(id) => None,
        Err(SpoolError::Unreadable { cause, .. } | SpoolError::Io(cause)) => unreadable(cause),
        Err(SpoolError::Unknown(_) | SpoolError::Claimed(_)) => None,
    }
}
