//! An envelope of the quarantine that cannot be had: a folder in its place can neither be read, written nor removed like a file, not
//! even by root.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::support::gatepost::Gatepost;
use crate::support::scripted::Scripted;

pub(crate) fn envelope(gatepost: &Gatepost, id: &str) -> PathBuf {
    gatepost.data_dir().join(format!("quarantine/{id}.envelope"))
}

pub(crate) fn put(envelope: &Path) {
    std::fs::rename(envelope, envelope.with_extension("aside")).unwrap();
    std::fs::create_dir(envelope).unwrap();
}

pub(crate) fn remove(envelope: &Path) {
    std::fs::remove_dir(envelope).unwrap();
    std::fs::rename(envelope.with_extension("aside"), envelope).unwrap();
}

/// Puts one in the way while an upstream, told to, answers an end of data: too late for the release to see it before.
#[derive(Clone, Default)]
pub(crate) struct Trap {
    set: Arc<Mutex<Option<PathBuf>>>,
}

impl Trap {
    pub(crate) fn set(&self, envelope: &Path) {
        *self.set.lock().unwrap() = Some(envelope.to_owned());
    }

    /// To be called by the upstream at the end of data; does nothing unless it was set since.
    pub(crate) fn spring(&self) {
        if let Some(envelope) = self.set.lock().unwrap().take() {
            put(&envelope);
        }
    }
}

/// An upstream that does.
pub(crate) fn trapped(trap: &Trap) -> Scripted {
    let trap = trap.clone();
    Scripted::with(move |asked| {
        if asked.verb == "." {
            trap.spring();
        }
        None
    })
}
