//! Restricts the process: the user it runs as, the files it sees, the number of descriptors, and no core dumps.
//!
//! All of this happens before there is a second thread: user and file system restrictions belong to a thread and are inherited
//! by its children. Landlock (Linux 5.13 and later) restricts files as far as the kernel supports it; if it does not, or a
//! container's filter forbids it, a line in the log says so.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, path_beneath_rules,
};
use nix::unistd::{User, getgrouplist};
use rustix::process::{DumpableBehavior, Resource, Rlimit, geteuid, getrlimit, setrlimit};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::handing::{Owner, give, refusal};
use super::{DataDir, ServerError, sockets};
use crate::config::Config;
use crate::durable;
use crate::maillog;

/// The newest Landlock rules used; a kernel that knows fewer applies what it knows.
const KNOWN: ABI = ABI::V5;
/// What the system's libraries read: names and addresses, time zones, trust anchors, the number of processors, random octets.
/// `/var/lib/ca-certificates` is where SUSE keeps the anchors that `/etc/ssl` links to.
const SYSTEM: [&str; 10] = [
    "/etc",
    "/usr",
    "/lib",
    "/lib64",
    "/run",
    "/proc",
    "/sys/fs/cgroup",
    "/dev",
    "/nix/store",
    "/var/lib/ca-certificates",
];
/// The variables that name other trust anchors, for OpenSSL and for `rustls-native-certs`: files, and folders of them.
const ANCHORS: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// The process as [`ready`] left it.
#[derive(Debug, Default)]
pub struct Ready {
    /// Sockets bound with a privilege that has been given up since, one for each `[[listen]]`.
    pub bound: Option<Vec<TcpListener>>,
    /// Whether it runs as root, and keeps doing so.
    as_root: bool,
    /// Why there is no sandbox although one is wanted.
    no_sandbox: Option<String>,
}

impl Ready {
    /// Logs what protection is missing. Called once the start has succeeded: a failed start says why in one line, and nothing
    /// else.
    pub(super) fn tell(&self) {
        if self.as_root {
            maillog::runs_as_root();
        }
        if let Some(why) = &self.no_sandbox {
            maillog::no_sandbox(why);
        }
    }
}

/// Readies the process for `serve`, and opens its sockets if that takes a privilege that is then given up. Call it on the main
/// thread while there is no other.
///
/// # Errors
/// The user does not exist or cannot be switched to, or a socket cannot be bound.
pub fn ready(config: &Config) -> Result<Ready, ServerError> {
    // No password or key may end up in a core file that somebody copies.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    // core(5): that limit does not apply to a core piped to a program; with this filter such a core contains no memory.
    let _ = std::fs::write("/proc/self/coredump_filter", "0");
    let descriptors = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: descriptors.maximum, ..descriptors });
    let bound = become_user(config)?;
    let no_sandbox = if config.process.sandbox {
        match restrict(config) {
            Ok(RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced) => None,
            Ok(RulesetStatus::NotEnforced) => {
                Some("the kernel has no Landlock, or a filter (a container's) forbids it".to_owned())
            }
            Err(error) => Some(error.to_string()),
        }
    } else {
        None
    };
    let as_root = config.process.user.is_empty() && geteuid().is_root();
    Ok(Ready { bound, as_root, no_sandbox })
}

/// As root: binds the sockets, gives the data directory to `[process] user` unless it already has it, and becomes that user. In
/// a data directory of that user, root only opens the lock, for reading.
fn become_user(config: &Config) -> Result<Option<Vec<TcpListener>>, ServerError> {
    let name = &config.process.user;
    if name.is_empty() {
        return Ok(None);
    }
    let user = user(name)?;
    if !geteuid().is_root() {
        if geteuid().as_raw() == user.uid.as_raw() {
            return Ok(None);
        }
        return Err(ServerError(format!(
            "[process] user = \"{name}\": only root can become another user; start as root or as {name}, or leave it empty"
        )));
    }
    // That the data directory is in use is a better error than that the port is.
    DataDir::in_use(&config.data_dir).map_or(Ok(()), Err)?;
    let bound = sockets::open(&config.listen)?;
    give(&config.data_dir, owner(&user)).map_err(|error| ServerError(not_given(config, &error)))?;
    switch(&user).map_err(|error| ServerError(format!("cannot become {name}: {error}")))?;
    Ok(Some(bound))
}

/// For a command that looks at what `serve` will find: as root becomes `[process] user`, as `serve` will, and returns its name.
/// Call it on the only thread.
///
/// # Errors
/// The user does not exist or cannot be switched to.
pub fn look_as_user(config: &Config) -> Result<Option<String>, ServerError> {
    let name = &config.process.user;
    if name.is_empty() || !geteuid().is_root() {
        return Ok(None);
    }
    // The configuration is in memory, and may be for root's eyes only.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    switch(&user(name)?).map_err(|error| ServerError(format!("cannot become {name}: {error}")))?;
    Ok(Some(name.clone()))
}

/// Says why `serve`, started as root, would not give the data directory to `[process] user`, if it would not.
pub fn would_not_give(config: &Config) -> Option<String> {
    let name = &config.process.user;
    if name.is_empty() || !geteuid().is_root() {
        return None;
    }
    refusal(&config.data_dir, owner(&user(name).ok()?)).map(|why| not_given(config, &why))
}

fn owner(user: &User) -> Owner {
    Owner { user: user.uid.as_raw(), group: user.gid.as_raw() }
}

fn not_given(config: &Config, why: &dyn std::fmt::Display) -> String {
    format!("{}: cannot be given to {}: {why}", config.data_dir.display(), config.process.user)
}

fn user(name: &str) -> Result<User, ServerError> {
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user),
        Ok(None) => Err(ServerError(format!(
            "[process] user = \"{name}\": there is no such user; `adduser --system --group {name}` makes it"
        ))),
        Err(error) => Err(ServerError(format!("[process] user = \"{name}\": {error}"))),
    }
}

fn switch(user: &User) -> rustix::io::Result<()> {
    let uid = rustix::thread::Uid::from_raw(user.uid.as_raw());
    let gid = rustix::thread::Gid::from_raw(user.gid.as_raw());
    // The key may be readable by a group such as ssl-cert.
    let name = CString::new(user.name.as_str()).unwrap_or_default();
    let groups = getgrouplist(&name, user.gid).unwrap_or_else(|_| vec![user.gid]);
    let groups: Vec<_> = groups.iter().map(|group| rustix::thread::Gid::from_raw(group.as_raw())).collect();
    set_thread_groups(&groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    // Otherwise /proc/self, through which the control socket is bound, would belong to root. The limit prevents core dumps.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)
}

/// Restricts the process to reading what the system's libraries read and the folders of the files that the configuration names,
/// and to writing to the data directory.
fn restrict(config: &Config) -> Result<RulesetStatus, RulesetError> {
    let named = named(config);
    let writable = writable(config);
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))?
        .create()?
        .add_rules(path_beneath_rules(SYSTEM.iter().map(Path::new), AccessFs::from_read(KNOWN)))?
        .add_rules(path_beneath_rules(named.iter(), AccessFs::from_read(KNOWN)))?
        .add_rules(path_beneath_rules(writable.iter(), AccessFs::from_all(KNOWN)))?
        .restrict_self()?;
    Ok(status.ruleset)
}

/// Returns the folders of the files that are read, now and when they change. Folders, since a file renamed into place is a
/// different one.
fn named(config: &Config) -> BTreeSet<PathBuf> {
    let settings = &config.upstream.settings;
    let identity = settings.identity.iter().flat_map(|pair| [&pair.certificate, &pair.private_key]);
    let password = settings.credentials.iter().map(|credentials| &credentials.password_file);
    let served = config.certificates.iter().flat_map(|pair| [&pair.certificate, &pair.private_key]);
    // The links of a folder of anchors lead elsewhere.
    let anchors: Vec<PathBuf> = ANCHORS
        .iter()
        .filter_map(std::env::var_os)
        .flat_map(|paths| std::env::split_paths(&paths).collect::<Vec<_>>())
        .flat_map(with_entries)
        .collect();
    [&config.tls.certificate, &config.tls.private_key, &config.auth.users, &config.sender.map]
        .into_iter()
        .chain(served)
        .chain(&config.tls.client_ca)
        .chain(&config.file)
        .chain(&settings.ca)
        .chain(identity)
        .chain(password)
        .chain(&config.notify.template)
        .chain(config.notify.webhook.iter().map(|hook| &hook.secret_file))
        .chain(&anchors)
        .flat_map(|file| {
            // Certificates are often links into another folder.
            [Some(file.clone()), file.canonicalize().ok()].into_iter().flatten()
        })
        .filter_map(|file| file.parent().map(or_here).map(Path::to_owned))
        .filter(|folder| folder.is_dir())
        .collect()
}

/// Returns a file, or a folder's files.
fn with_entries(path: PathBuf) -> Vec<PathBuf> {
    match path.read_dir() {
        Ok(entries) => entries.filter_map(Result::ok).map(|entry| entry.path()).collect(),
        Err(_) => vec![path],
    }
}

/// Returns `.` for the empty folder of a relative path.
fn or_here(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() { Path::new(".") } else { folder }
}

fn writable(config: &Config) -> Vec<PathBuf> {
    let mut folders = vec![config.data_dir.clone()];
    // A self-signed pair is made if there is none.
    if config.tls.may_generate
        && let Some(folder) = config.tls.certificate.parent()
    {
        folders.push(folder.to_owned());
    }
    // An error is reported later, when the data directory is taken.
    let _ = durable::create_folder(&config.data_dir);
    folders
        .iter()
        .filter_map(|folder| folder.ancestors().map(or_here).find(|path| path.is_dir()))
        .map(Path::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sandbox_shows_what_is_named_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().to_owned();
        for name in ["named", "data", "other"] {
            std::fs::create_dir(folder.join(name)).unwrap();
            std::fs::write(folder.join(name).join("file"), b"x").unwrap();
        }
        let file = folder.join("named/config.toml");
        let text = format!(
            "data_dir = {:?}\n[tls]\ncertificate = \"a.pem\"\nprivate_key = \"a.key\"\n[relay]\nhosts = [\"127.0.0.1\"]\n",
            folder.join("data")
        );
        std::fs::write(&file, text).unwrap();
        let config = Config::load(&file, "gate.example").unwrap();
        // A thread of its own: there is no way back.
        let enforced = std::thread::spawn(move || {
            if restrict(&config).unwrap() == RulesetStatus::NotEnforced {
                return false;
            }
            assert!(std::fs::read(folder.join("named/file")).is_ok());
            assert!(std::fs::write(folder.join("named/new"), b"x").is_err());
            assert!(std::fs::write(folder.join("data/new"), b"x").is_ok());
            assert!(std::fs::read(folder.join("other/file")).is_err());
            assert!(std::fs::read_to_string("/etc/hosts").is_ok());
            true
        });
        let known =
            std::fs::read_to_string("/sys/kernel/security/lsm").is_ok_and(|list| list.contains("landlock"));
        assert!(enforced.join().unwrap() || !known, "the kernel has Landlock, and nothing was enforced");
    }
}
