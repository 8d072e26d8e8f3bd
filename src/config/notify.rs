//! `[notify]`: who is notified, in which words, and the webhook.

use std::path::Path;

use super::section::Section;
use super::{Notify, value};
use crate::notify::webhook::{Hook, Target};
use crate::units::{DAY, SECOND};

/// Reads the table.
pub(super) fn read(section: &mut Section<'_>, data_dir: &Path, hostname: &str) -> Notify {
    let to = section.list("to", Vec::new(), value::mailbox);
    let from = section.text("from", String::new(), |text| match text {
        "" => Ok(String::new()),
        address => value::mailbox(address),
    });
    let digest = section.duration_or("digest", "off", Some(DAY), SECOND..=30 * DAY);
    let template = section.optional_path("template");
    let webhook = webhook(section, data_dir);
    let from = if from.is_empty() { format!("gatepost@{hostname}") } else { from };
    Notify { to, from, digest, template, webhook }
}

/// The file in the data folder with the secret that Gatepost generates itself.
const OWN_SECRET: &str = "webhook-secret";

fn webhook(section: &mut Section<'_>, data_dir: &Path) -> Option<Hook> {
    let target = section.text("webhook", None, |text| match text {
        "" => Ok(None),
        url => Target::parse(url).map(Some).map_err(str::to_owned),
    });
    let secret_file = section.optional_path("webhook_secret_file");
    if target.is_none() && secret_file.is_some() && section.sound(&["webhook"]) {
        section.problem("webhook_secret_file", "empty, or an address in webhook to which events go");
    }
    let own_secret = secret_file.is_none();
    let secret_file = secret_file.unwrap_or_else(|| data_dir.join(OWN_SECRET));
    target.map(|target| Hook { target, secret_file, own_secret })
}
