//! SIGHUP: reloads configuration, certificates and users, all of it or nothing.
//!
//! What the parts use applies at once, to everybody; what belongs to a session (its limits, `[[classify]]`, `[relay]`) to
//! sessions that begin from now on. What is bound to the start (sockets, folders, the route to the upstream) stays as it was,
//! and the log says which keys wait for a restart.

use std::path::Path;
use std::sync::Arc;

use tokio::signal::unix::Signal;

use super::slots::{Most, Slots};
use super::{systemd, users_unusable, watchers};
use crate::config::Config;
use crate::desk::Terms;
use crate::maillog;
use crate::parts::Parts;

/// Reloads at each SIGHUP.
pub(super) async fn hangups(parts: Parts, slots: Slots, mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        systemd::reloading();
        let (now, slots) = (parts.current(), slots.clone());
        let done = tokio::task::spawn_blocking(move || reload(&now, &slots)).await;
        match done.unwrap_or_else(|error| Err(Refused::Other(error.to_string()))) {
            Ok(waiting) => maillog::reloaded(&waiting),
            Err(Refused::Certificate(why)) => {
                maillog::reload_refused(&why);
                parts.desk.certificate_refused(&why).await;
            }
            Err(Refused::Other(why)) => maillog::reload_refused(&why),
        }
        systemd::ready();
    }
}

/// Why everything stays as it was.
enum Refused {
    /// A certificate was refused; the abuse desk is told, too.
    Certificate(String),
    Other(String),
}

impl<E: std::fmt::Display> From<E> for Refused {
    fn from(error: E) -> Self {
        Self::Other(error.to_string())
    }
}

/// Reloads; returns the keys that changed and wait for a restart.
fn reload(parts: &Parts, slots: &Slots) -> Result<Vec<&'static str>, Refused> {
    let Some(file) = parts.config.file.as_deref() else { return Ok(Vec::new()) };
    let (config, waiting) = read(file, &parts.config)?;
    let config = Arc::new(config);
    // Everything that may fail comes first; the certificates last, since reading them puts them in force.
    let terms = Terms::read(Arc::clone(&config))?;
    // As at the start, one source of senders is enough.
    let needs_users = config.relay_hosts.is_empty() && !parts.config.relay_hosts.is_empty();
    if needs_users && config.auth.mechanisms.is_empty() {
        let why = "[relay] hosts = [] and, until a restart, [auth] mechanisms = []: nobody could send";
        return Err(Refused::Other(format!("{}: {why}", file.display())));
    }
    let users = match needs_users && parts.auth.has_nobody() {
        true => parts.auth.read_first(),
        false => parts.auth.read_anew(),
    };
    let users = users.map_err(|error| config.files.located(&users_unusable(&error)))?;
    let reloaded = parts.tls.served().reload_all();
    reloaded.map_err(|error| Refused::Certificate(config.files.located(&error)))?;

    parts.ledger.set_policy(config.policy.clone());
    parts.spool.adopt(config.quarantine.clone());
    parts.auth.adopt(config.auth.guesses, config.auth.max_checks);
    parts.buffers.resize(config.session.max_buffered);
    parts.digests.adopt(&config);
    parts.desk.adopt(terms);
    slots.adopt(Most::of(&config.session));
    parts.in_force.store(config);
    if let Some(users) = users {
        watchers::users_changed(parts, parts.auth.adopt_users(users));
    }
    Ok(waiting)
}

/// Reads the new configuration, with what is bound to the start as it was; returns it with the keys of those values that
/// changed.
fn read(file: &Path, old: &Config) -> Result<(Config, Vec<&'static str>), String> {
    let mut new = Config::load_anew(file, old).map_err(|problems| problems.to_string())?;
    let mut waiting = Vec::new();
    let mut keep = |key, changed: bool| {
        if changed {
            waiting.push(key);
        }
    };
    keep("hostname", bind(&old.hostname, &mut new.hostname));
    keep("data_dir", bind(&old.data_dir, &mut new.data_dir));
    keep("[[listen]]", bind(&old.listen, &mut new.listen));
    keep("[tls]", bind(&old.tls, &mut new.tls));
    keep("[[certificate]]", bind(&old.certificates, &mut new.certificates));
    keep("[process]", bind(&old.process, &mut new.process));
    keep("[upstream]", bind(&old.upstream, &mut new.upstream));
    keep("[auth] mechanisms", bind(&old.auth.mechanisms, &mut new.auth.mechanisms));
    keep("[auth] users", bind(&old.auth.users, &mut new.auth.users));
    keep("[sender]", bind(&old.sender, &mut new.sender));
    keep("[log]", bind(&old.log, &mut new.log));
    Ok((new, waiting))
}

/// Resets `new` to `old`; returns whether they differed.
fn bind<T: Clone + PartialEq>(old: &T, new: &mut T) -> bool {
    let changed = old != new;
    new.clone_from(old);
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_changed_waits_for_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        let write = |hostname: &str, more: &str| {
            let text = format!("hostname = \"{hostname}\"\n[relay]\nhosts = [\"127.0.0.1\"]\n{more}");
            std::fs::write(&file, text).unwrap();
        };
        write("mx.old.example", "");
        let old = Config::load(&file, "machine.example").unwrap();
        for (hostname, more, expected) in [
            ("mx.old.example", "", &[][..]),
            ("mx.new.example", "", &["hostname"]),
            ("mx.old.example", "[upstream]\ndomains = [\"other.example\"]", &["[upstream]"]),
            ("mx.new.example", "[upstream]\ntimeout = \"1m\"", &["hostname", "[upstream]"]),
        ] {
            write(hostname, more);
            let (new, waiting) = read(&file, &old).unwrap();
            assert_eq!(waiting, expected, "{hostname} {more}");
            assert_eq!((new.hostname.as_str(), &new.upstream), ("mx.old.example", &old.upstream));
            assert_eq!(new.notify.from, "gatepost@mx.old.example", "that follows from it");
        }
    }

    #[test]
    fn our_own_secret_stays_in_the_data_folder_that_we_have() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        let write = |data_dir: &str, webhook: &str| {
            let notify = format!("[notify]\nwebhook = \"{webhook}\"\n");
            let text = format!("data_dir = \"{data_dir}\"\n[relay]\nhosts = [\"127.0.0.1\"]\n{notify}");
            std::fs::write(&file, text).unwrap();
        };
        for webhook in ["", "https://hook.example/"] {
            write("old", webhook);
            let old = Config::load(&file, "machine.example").unwrap();
            write("new", "https://hook.example/");
            let (new, waiting) = read(&file, &old).unwrap();
            assert_eq!((waiting, new.data_dir), (vec!["data_dir"], folder.path().join("old")));
            let secret_file = new.notify.webhook.map(|hook| hook.secret_file);
            assert_eq!(secret_file, Some(folder.path().join("old/webhook-secret")));
        }
    }
}
