//! What each upstream offers: asked at the start, and again and again, with a line in the log about what is amiss.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::sleep;

use crate::maillog;
use crate::parts::Parts;
use crate::upstream::{Contact, Fault};

/// How long the start waits to learn what the upstream offers, before clients are let in.
const FIRST_CONTACT: Duration = Duration::from_secs(3);
/// How often the upstream is asked again what it offers.
const CONTACT_EVERY: Duration = Duration::from_secs(60);
/// How much longer than `connect_timeout` that may take, since it must first get a free connection.
const CONTACT_SLACK: Duration = Duration::from_secs(15);
/// How often until it first answers: until then clients are offered fewer extensions.
const CONTACT_ANEW: Duration = Duration::from_secs(2);

/// Learns what each upstream offers, and logs what is amiss: once, until it changes.
#[derive(Default)]
pub(super) struct Contacts {
    silent: HashSet<String>,
}

impl Contacts {
    /// Asks for the first time.
    pub(super) async fn begun(parts: &Parts) -> Self {
        let mut contacts = Self::default();
        contacts.refresh(parts, FIRST_CONTACT).await;
        contacts
    }

    /// Asks again and again.
    pub(super) async fn keep(mut self, parts: Parts) {
        loop {
            let known = parts.upstream.offers().is_some();
            sleep(if known { CONTACT_EVERY } else { CONTACT_ANEW }).await;
            self.refresh(&parts, parts.config.upstream.settings.connect_timeout + CONTACT_SLACK).await;
        }
    }

    async fn refresh(&mut self, parts: &Parts, patience: Duration) {
        let knew = parts.upstream.offers().is_some();
        let contacts = parts.upstream.contact(patience).await;
        // Our own want of a place or a descriptor says nothing of an upstream.
        let is_silent =
            |contact: &Contact| !matches!(contact.offers, Ok(_) | Err(Fault::Busy(_) | Fault::Starved(_)));
        let anybody = !contacts.iter().all(is_silent);
        for Contact { address, offers } in contacts {
            let address = address.to_string();
            match offers {
                Ok(offers) => {
                    if self.silent.remove(&address) {
                        maillog::upstream_answers(&address);
                    }
                    if !knew && parts.config.upstream.settings.names_clients() && offers.xclient.is_empty() {
                        maillog::no_xclient(&address);
                    }
                }
                Err(Fault::Busy(_) | Fault::Starved(_)) => {}
                Err(fault) => {
                    if !self.silent.insert(address.clone()) {
                        continue;
                    }
                    if anybody {
                        maillog::upstream_left_out(&address, &fault.to_string());
                    } else {
                        maillog::upstream_unreachable(&address, &fault.to_string());
                    }
                }
            }
        }
    }
}
