//! An upstream with whims.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::plan::Whim;
use crate::support::scripted::{Answer, Scripted};

/// What it does just now.
#[derive(Default)]
pub(crate) struct Mood {
    whim: Mutex<Option<(&'static str, Whim, u64)>>,
    asked: AtomicU64,
}

impl Mood {
    pub(crate) fn set(&self, whim: Option<(&'static str, Whim, u64)>) {
        *self.whim.lock().unwrap() = whim;
    }
}

pub(crate) fn start(mood: &Arc<Mood>) -> Scripted {
    let mood = Arc::clone(mood);
    Scripted::with(move |asked| {
        let (verb, whim, one_in) = (*mood.whim.lock().unwrap())?;
        if verb != asked.verb || !mood.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(one_in) {
            return None;
        }
        Some(match whim {
            Whim::Stall => Answer::Silence,
            Whim::Drop => Answer::Close,
            Whim::HalfALine => Answer::Torn("250 2.0.0 O".to_owned()),
            Whim::Garbage => Answer::Reply("\u{1}\u{2}2x0 \u{fffd}garbage\rmore".to_owned()),
            Whim::NotNow => Answer::Last("421 4.3.2 Service shutting down".to_owned()),
            Whim::Lost if verb == "." => Answer::Lost("250 2.0.0 Ok: queued as LOST000001".to_owned()),
            Whim::Lost => Answer::Close,
        })
    })
}
