//! Decides between relay and quarantine: what a reply means, what an account has in its window, who is blocked.
//!
//! [`mod@classify`], [`window`], [`detector`], [`cause`] and [`mimicry`] are pure; [`ledger`] keeps their state, and its
//! `store.rs` is the only file that names sled.

pub mod cause;
pub mod classify;
pub mod detector;
pub mod ledger;
pub mod mimicry;
pub mod window;

pub use classify::{Outcome, Rules, classify, denies_relaying};
pub use ledger::{Ledger, Reservation, Standing, Watch};
