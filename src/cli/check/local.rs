//! Facts about this machine: files, certificates, users, limits.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};

use super::folder::{self, Foreign};
use crate::account::Kind;
use crate::auth::UsersError;
use crate::auth::users::Users;
use crate::clock;
use crate::config::Config;
use crate::guard::ledger::Match;
use crate::net::self_signed;
use crate::net::tls::{Acceptor, EXPIRY_WARNING, Expiring};
use crate::notify::template::Template;
use crate::notify::webhook::Secrets;
use crate::sender::Senders;
use crate::server::{DataDir, process};

/// What was found on this machine.
pub(super) struct Facts {
    /// The user as whom the files were read, if not the calling one; or why switching to that user failed.
    pub(super) read_as: Result<Option<String>, String>,
    /// The highest limit on open files that a process may set itself; `None`: unlimited.
    pub(super) descriptors: Option<u64>,
    pub(super) certificate: Certificate,
    /// Certificates that expire soon, and whether they already have.
    pub(super) expiring: Vec<(Expiring, bool)>,
    pub(super) users: UsersFile,
    /// Why the senders file, which is needed, cannot be used.
    pub(super) senders: Option<String>,
    /// Folders and files of ours that other users than Gatepost's can read.
    pub(super) exposed: Vec<PathBuf>,
    /// Secret files that everybody can read or change.
    pub(super) open_secrets: Vec<OpenSecret>,
    /// What cannot be used of `[notify]`, and why.
    pub(super) notify: Vec<String>,
    /// Whether a secret of the webhook is too short.
    pub(super) weak_secret: bool,
    /// Why the data folder cannot be used.
    pub(super) unusable: Option<String>,
    /// Something that shows that the data folder is another program's.
    pub(super) stranger: Option<String>,
    /// Something in the data folder with another owner than the folder.
    pub(super) foreign: Option<Foreign>,
}

/// What a file with a secret belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Users,
    Certificate,
    Upstream,
    Webhook,
}

/// A file whose secret is not protected.
pub(super) struct OpenSecret {
    pub(super) owner: Owner,
    pub(super) path: PathBuf,
    /// The file's permissions.
    pub(super) mode: u32,
}

pub(super) enum Certificate {
    Usable,
    /// Missing; `serve` will generate it.
    ToBeMade,
    Unusable(String),
}

pub(super) enum UsersFile {
    Usable {
        /// Users who cannot log in because of their hash, and why.
        shut_out: Vec<(String, String)>,
        /// Mechanisms that are configured but not offered, each with a user who could not use it.
        barred: Vec<(&'static str, String)>,
        /// The number of mechanisms that are offered.
        offered: usize,
        /// The keys of the configuration that name a user who is not in it, each with that name.
        unknown: Vec<(&'static str, String)>,
    },
    Missing,
    Unusable {
        why: String,
        cure: &'static str,
    },
}

/// As root, does what root does for `serve` first, then switches for good to `[process] user`, who has to read the
/// rest.
pub(super) fn look(config: &Config) -> Facts {
    let mode = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
    let mut exposed = Vec::new();
    for name in ["", "quarantine", "ledger", "outbox", "control.sock", "secret", "webhook-secret"] {
        // Without the trailing `/` that joining "" would leave.
        let path: PathBuf = config.data_dir.join(name).components().collect();
        if mode(&path) & 0o077 != 0 {
            exposed.push(path);
        }
    }
    let stranger = DataDir::stranger_in(&config.data_dir);
    let unusable = folder::unusable(&config.data_dir).or_else(|| process::would_not_give(config));
    let foreign = folder::foreign(&config.data_dir);
    let secrets = secret_files(config).into_iter().filter(|(_, path)| path.is_file());
    let secrets =
        secrets.map(|(owner, path)| OpenSecret { owner, path: path.clone(), mode: mode(path) & 0o7777 });
    // Some keep such files readable for a group of its own.
    let open_secrets = secrets.filter(|secret| secret.mode & 0o006 != 0).collect();
    let read_as = process::look_as_user(config).map_err(|error| error.to_string());
    let (certificate, expiring) = certificate(config);
    let template = config.notify.template.as_deref().map(Template::read);
    let webhook = config.notify.webhook.as_ref();
    // A secret that `serve` has yet to generate is not a finding.
    let there = webhook.filter(|hook| !hook.own_secret || hook.secret_file.exists());
    let secrets = there.map(|hook| Secrets::read(&hook.secret_file));
    let wrong = |error: &dyn std::fmt::Display| config.files.located(&error);
    let notify = [
        template.and_then(|read| read.err().map(|error| wrong(&error))),
        secrets.as_ref().and_then(|read| read.as_ref().err().map(|error| wrong(error))),
    ];
    Facts {
        read_as,
        // `serve` raises its own limit to the highest that it is allowed.
        descriptors: getrlimit(Resource::Nofile).maximum,
        certificate,
        expiring,
        users: users(config),
        senders: Senders::open(config.sender.policy, &[], &config.sender.map).err().map(|why| wrong(&why)),
        exposed,
        notify: notify.into_iter().flatten().collect(),
        weak_secret: secrets.is_some_and(|read| read.is_ok_and(|secrets| secrets.are_weak())),
        open_secrets,
        unusable,
        stranger,
        foreign,
    }
}

/// The files with secrets, each with what it belongs to.
fn secret_files(config: &Config) -> Vec<(Owner, &PathBuf)> {
    let settings = &config.upstream.settings;
    let keys = config.certificates.iter().map(|pair| &pair.private_key);
    let password = settings.credentials.as_ref().map(|credentials| &credentials.password_file);
    let identity = settings.identity.as_ref().map(|identity| &identity.private_key);
    // Gatepost's own secret is in data_dir, which is examined as a whole.
    let webhook =
        config.notify.webhook.as_ref().filter(|hook| !hook.own_secret).map(|hook| &hook.secret_file);
    let mut files = vec![(Owner::Users, &config.auth.users), (Owner::Certificate, &config.tls.private_key)];
    files.extend(keys.map(|key| (Owner::Certificate, key)));
    files.extend(password.into_iter().chain(identity).map(|file| (Owner::Upstream, file)));
    files.extend(webhook.map(|file| (Owner::Webhook, file)));
    files
}

fn certificate(config: &Config) -> (Certificate, Vec<(Expiring, bool)>) {
    let wrong = |error: &dyn std::fmt::Display| config.files.located(&error);
    let (certificate, key) = (&config.tls.certificate, &config.tls.private_key);
    let there = match (self_signed::is_there(certificate), self_signed::is_there(key)) {
        (Ok(certificate), Ok(key)) => certificate || key,
        // `serve` would not generate one either.
        (Err(error), _) | (_, Err(error)) => return (Certificate::Unusable(wrong(&error)), Vec::new()),
    };
    let made = config.tls.may_generate && !there;
    let client_ca = config.tls.client_ca.as_deref();
    let opened = match made {
        true => Acceptor::open_further(config.certificates.clone(), client_ca),
        false => Acceptor::open(config.key_pairs(), client_ca),
    };
    match opened {
        Ok(acceptor) => {
            let now = clock::now();
            let expiring = acceptor.served().expiring(now.after(EXPIRY_WARNING)).into_iter();
            let usable = if made { Certificate::ToBeMade } else { Certificate::Usable };
            (usable, expiring.map(|one| (one.clone(), one.not_after <= now)).collect())
        }
        Err(error) => (Certificate::Unusable(wrong(&error)), Vec::new()),
    }
}

fn users(config: &Config) -> UsersFile {
    let users = match Users::read(&config.auth.users) {
        Ok(users) => users,
        Err(UsersError::Io { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
            return UsersFile::Missing;
        }
        Err(error) => {
            let cure = match &error {
                UsersError::Io { .. } => "Mend that file, or name another in [auth] users",
                UsersError::Line { .. } | UsersError::Empty { .. } => "Mend that line",
                UsersError::Random(_) => "Give the system's random numbers to it (/dev/urandom)",
            };
            return UsersFile::Unusable { why: config.files.located(&error), cure };
        }
    };
    let mechanisms = &config.auth.mechanisms;
    let shut_out = users
        .iter()
        .filter_map(|user| user.shut_out().map(|why| (user.name().to_owned(), why.to_owned())))
        .collect();
    let barred = mechanisms
        .iter()
        .filter_map(|mechanism| {
            let user = users.barred_from(*mechanism).next()?;
            Some((mechanism.name(), user.name().to_owned()))
        })
        .collect();
    let unknown = unknown(&users, config);
    UsersFile::Usable { shut_out, barred, offered: users.offered(mechanisms).len(), unknown }
}

fn unknown(users: &Users, config: &Config) -> Vec<(&'static str, String)> {
    let exempt = config.policy.exempt.iter().filter_map(|account| match account.kind() {
        Kind::User(name) => Some(("[limit] exempt", name)),
        Kind::Host(_) => None,
    });
    let rules = config.policy.rules.iter().filter_map(|rule| match &rule.matches {
        Match::User(name) => Some(("[[account]] match", name.as_str())),
        Match::Domain(_) | Match::Network(_) => None,
    });
    let named = exempt.chain(rules).filter(|(_, name)| users.get(name).is_none());
    named.map(|(key, name)| (key, name.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_that_the_configuration_alone_knows() {
        let hash = "$5$rounds=1000$8g3bLFkL5Aut2SOi$GLcj/dD3LUBe6HsKOb/.Md/0lurit91j96ihy0vhx/2";
        let users = Users::parse(format!("Anna:{hash}\n").as_bytes()).unwrap();
        let rule = |who: &str| format!("[[account]]\nmatch = {who:?}\nexempt = true\n");
        let exempt = "[limit]\nexempt = [\"anna\", \"bert\", \"host:192.0.2.7\"]\n";
        let text = exempt.to_owned() + &rule("ANNA") + &rule("carl") + &rule("*@example.org");
        let config = Config::parse(&text, Path::new("config.toml"), "mail.example.org").unwrap();
        assert_eq!(
            unknown(&users, &config),
            [("[limit] exempt", "bert".to_owned()), ("[[account]] match", "carl".to_owned())]
        );
    }
}
