//! How many messages are in each state, counted as they come, change and go; pure.

use std::collections::BTreeMap;

use super::envelope::State;
use super::terms::Usage;

/// What is in each state; one that has nothing is not there.
#[derive(Debug, Default)]
pub(super) struct Stock(BTreeMap<State, Usage>);

impl Stock {
    /// Counts a message of `octets` that came into `state`.
    pub(super) fn add(&mut self, state: State, octets: u64) {
        let usage = self.0.entry(state).or_default();
        usage.messages += 1;
        usage.octets = usage.octets.saturating_add(octets);
    }

    /// Takes back one that was counted.
    pub(super) fn subtract(&mut self, state: State, octets: u64) {
        if let Some(usage) = self.0.get_mut(&state) {
            usage.messages = usage.messages.saturating_sub(1);
            usage.octets = usage.octets.saturating_sub(octets);
            if usage.messages == 0 {
                self.0.remove(&state);
            }
        }
    }

    /// Returns what is in `state`.
    pub(super) fn of(&self, state: State) -> Usage {
        self.0.get(&state).copied().unwrap_or_default()
    }

    /// Returns what is in each state.
    pub(super) fn by_state(&self) -> BTreeMap<State, Usage> {
        self.0.clone()
    }
}
