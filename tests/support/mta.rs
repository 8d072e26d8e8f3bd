//! Real MTAs: Postfix, Exim, OpenSMTPD and Dovecot as tests/install unpacked them, each with its own configuration, queue and accounts in a
//! temporary folder, on a high loopback port, gone when the test is.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use super::gatepost::{PASSWORD, Setup};
use super::{free_address, tls, wait_for};

mod dovecot;
mod opensmtpd;

/// The domain of the accounts that every MTA here has.
pub(crate) const DOMAIN: &str = "mta.example";

/// A domain that a verifying MTA passes on to the one behind it.
pub(crate) const FOREIGN: &str = "foreign.example";

/// The network of relay hosts, as far as the MTA's own configuration knows it.
pub(crate) const RELAY_NETWORK: &str = "127.0.0.2/32";

/// Local accounts with a Maildir. Everything else at [`DOMAIN`] is unknown, but for [`REFUSALS`].
pub(crate) const ACCOUNTS: &[&str] =
    &["alice", "bob", "carol", "dave", "abuse", "postmaster", "refused", "full", "overfull", "sick"];

/// Recipients at [`DOMAIN`] that are there and still get no mail, and what they are told.
pub(crate) const REFUSALS: &[(&str, &str)] = &[
    ("refused", "550 5.7.1 Message refused by policy"),
    ("full", "452 4.2.2 Mailbox full"),
    ("overfull", "552 5.2.2 Mailbox over quota"),
    ("sick", "451 4.3.0 Mail system in trouble"),
    // As the MTA of some other house would say it; and a second house's policy.
    ("gone", "550 5.1.1 No such user here"),
    ("gone-bare", "550 No such user here"),
    ("moved", "550 5.1.6 Address has changed"),
    ("listed", "550 5.7.1 Service unavailable; client blocked using bl.example"),
    ("disabled", "550 5.2.1 Mailbox disabled"),
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Postfix,
    Exim,
    OpenSmtpd,
    /// The submission service, which relays to this MTA, and has no mailboxes of its own.
    Dovecot(SocketAddr),
}

/// How an MTA treats recipients at [`FOREIGN`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Foreign {
    /// It takes none.
    Unrouted,
    /// It takes everybody there, and bounces who is none when that MTA says so.
    Taken { by: SocketAddr },
    /// It asks the MTA there before it answers. `reject_code` is Postfix's `unverified_recipient_reject_code`, if not as in the README.
    Verified { by: SocketAddr, reject_code: Option<u16> },
}

pub(crate) struct Mta {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    /// Where mail from elsewhere comes in; Exim alone has such a port beside Gatepost's.
    pub(crate) public: SocketAddr,
    folder: tempfile::TempDir,
    child: Child,
    /// Its end is the end of the MTA and of all its processes.
    lifeline: Option<ChildStdin>,
}

impl Mta {
    pub(crate) fn postfix() -> Self {
        Self::start(Kind::Postfix, DOMAIN, Foreign::Unrouted)
    }

    pub(crate) fn exim() -> Self {
        Self::start(Kind::Exim, DOMAIN, Foreign::Unrouted)
    }

    pub(crate) fn opensmtpd() -> Self {
        Self::start(Kind::OpenSmtpd, DOMAIN, Foreign::Unrouted)
    }

    /// See [`Self::login`].
    pub(crate) fn dovecot(relay: SocketAddr) -> Self {
        Self::start(Kind::Dovecot(relay), DOMAIN, Foreign::Unrouted)
    }

    pub(crate) fn start(kind: Kind, domain: &str, foreign: Foreign) -> Self {
        let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/mta");
        assert!(cache.join("libraries").exists(), "no MTA in {}: run tests/install", cache.display());
        // Another program may take the port between the look for it and the start.
        for attempt in 1.. {
            match Self::try_start(kind, domain, foreign, &cache) {
                Ok(mta) => return mta,
                Err(why) => assert!(attempt < 3, "{kind:?} does not start: {why}"),
            }
        }
        unreachable!()
    }

    fn try_start(kind: Kind, domain: &str, foreign: Foreign, cache: &Path) -> Result<Self, String> {
        let folder = tempfile::Builder::new().prefix("gatepost-mta-").tempdir().unwrap();
        // The MTA's own unprivileged processes must get through.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (address, public) = (free_address(), free_address());
        let dir = folder.path();
        fs::write(dir.join("accounts"), ACCOUNTS.join("\n") + "\n").unwrap();
        match kind {
            Kind::Postfix => configure_postfix(dir, domain, address, foreign),
            Kind::Exim => {
                fs::write(dir.join("exim.conf"), exim_conf(dir, domain, [address, public], foreign)).unwrap();
            }
            Kind::OpenSmtpd => {
                fs::write(dir.join("smtpd.conf"), opensmtpd::smtpd_conf(domain, address)).unwrap();
            }
            Kind::Dovecot(relay) => {
                let text = dovecot::dovecot_conf(cache, dir, domain, address, relay);
                fs::write(dir.join("dovecot.conf"), text).unwrap();
            }
        }
        let name = match kind {
            Kind::Postfix => "postfix",
            Kind::Exim => "exim",
            Kind::OpenSmtpd => "opensmtpd",
            Kind::Dovecot(_) => "dovecot",
        };
        let output = fs::File::create(dir.join("output")).unwrap();
        let mut child = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/mta.sh"))
            .args([name.as_ref(), cache.as_os_str(), dir.as_os_str()])
            .stdin(Stdio::piped())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .map_err(|error| format!("tests/support/mta.sh: {error}"))?;
        let lifeline = child.stdin.take();
        let mut mta = Self { kind, address, public, folder, child, lifeline };
        let up = wait_for(Duration::from_secs(30), || {
            greeted(address).then_some(true).or_else(|| mta.child.try_wait().unwrap().map(|_| false))
        });
        if up == Some(true) { Ok(mta) } else { Err(mta.log()) }
    }

    /// Everything in the account's Maildir, by the time at which it arrived, line ends as CRLF.
    pub(crate) fn mailbox(&self, account: &str) -> Vec<Vec<u8>> {
        let mut messages = BTreeMap::new();
        for entry in fs::read_dir(self.maildir(account)).into_iter().flatten().flatten() {
            let written = entry.metadata().unwrap().modified().unwrap();
            messages.insert((written, entry.file_name()), with_crlf(&fs::read(entry.path()).unwrap()));
        }
        messages.into_values().collect()
    }

    /// Waits until the account's Maildir holds `count` messages.
    pub(crate) fn expect_mail(&self, account: &str, count: usize) -> Vec<Vec<u8>> {
        let found = wait_for(Duration::from_secs(30), || Some(()).filter(|()| self.count(account) >= count));
        match found {
            Some(()) => {
                let messages = self.mailbox(account);
                assert_eq!(messages.len(), count, "messages in the mailbox of {account}");
                messages
            }
            None => panic!(
                "{count} messages for {account} did not come, {} did:\n{}",
                self.mailbox(account).len(),
                self.log()
            ),
        }
    }

    /// A Gatepost in front that logs in there, as at a provider's.
    pub(crate) fn login(&self) -> Setup {
        let file = self.folder.path().join("password");
        fs::write(&file, dovecot::PASSWORD).unwrap();
        Setup::new(self.address)
            .set("upstream.username", "gatepost")
            .set("upstream.password_file", file.display().to_string())
    }

    /// Messages in the account's Maildir.
    fn count(&self, account: &str) -> usize {
        fs::read_dir(self.maildir(account)).map_or(0, Iterator::count)
    }

    fn maildir(&self, account: &str) -> PathBuf {
        self.folder.path().join("home").join(account).join("Maildir/new")
    }

    /// Messages in all mailboxes together.
    pub(crate) fn delivered(&self) -> usize {
        ACCOUNTS.iter().map(|account| self.count(account)).sum()
    }

    /// Its mail log.
    pub(crate) fn log_file(&self) -> PathBuf {
        self.folder.path().join(match self.kind {
            Kind::Postfix => "maillog",
            Kind::Exim => "logs/mainlog",
            Kind::OpenSmtpd => "output",
            Kind::Dovecot(_) => "maillog",
        })
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        ["output", "maillog", "logs/mainlog", "logs/rejectlog", "logs/paniclog"]
            .iter()
            .map(|name| self.folder.path().join(name))
            .filter_map(|path| {
                let mut text = Vec::new();
                fs::File::open(&path).ok()?.read_to_end(&mut text).ok()?;
                Some(format!("--- {}\n{}", path.display(), String::from_utf8_lossy(&text)))
            })
            .collect()
    }

    /// Ends it with all its processes, as a crash of the machine would.
    pub(crate) fn stop(&mut self) {
        self.lifeline = None;
        if wait_for(Duration::from_secs(10), || self.child.try_wait().unwrap()).is_none() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}

impl Drop for Mta {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{:?} at {}:\n{}", self.kind, self.address, self.log());
        }
        self.stop();
    }
}

fn greeted(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut greeting = [0; 4];
    stream.read_exact(&mut greeting).is_ok() && &greeting == b"220 "
}

fn with_crlf(text: &[u8]) -> Vec<u8> {
    let mut crlf = Vec::with_capacity(text.len() + text.len() / 40);
    for &octet in text {
        if octet == b'\n' && crlf.last() != Some(&b'\r') {
            crlf.push(b'\r');
        }
        crlf.push(octet);
    }
    crlf
}

/// The README's recipe: a loopback listener of its own that believes XCLIENT from us.
fn configure_postfix(dir: &Path, domain: &str, address: SocketAddr, foreign: Foreign) {
    let d = dir.display();
    let routes = match foreign {
        Foreign::Unrouted => String::new(),
        Foreign::Taken { by } | Foreign::Verified { by, .. } => {
            format!("{FOREIGN} smtp:[{}]:{}\n", by.ip(), by.port())
        }
    };
    let refusals: String =
        REFUSALS.iter().map(|(name, reply)| format!("{name}@{domain} {reply}\n")).collect();
    fs::write(dir.join("refusals"), refusals).unwrap();
    fs::write(dir.join("routes"), routes).unwrap();
    fs::create_dir_all(dir.join("sasl")).unwrap();
    tls::material().write(dir);
    // SASL must be on for XCLIENT LOGIN to mean anything, and Postfix then insists on a mechanism that it could offer.
    fs::write(
        dir.join("sasl/smtpd.conf"),
        "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: PLAIN\n",
    )
    .unwrap();
    let main = format!(
        "compatibility_level = 3.6\n\
         queue_directory = {d}/queue\n\
         data_directory = {d}/data\n\
         daemon_directory = /usr/lib/postfix/sbin\n\
         command_directory = /usr/sbin\n\
         shlib_directory = /usr/lib/postfix\n\
         meta_directory = /etc/postfix\n\
         maillog_file = {d}/maillog\n\
         maillog_file_prefixes = {d}\n\
         mail_owner = postfix\n\
         setgid_group = postdrop\n\
         myhostname = mx.{domain}\n\
         mydestination = {domain}\n\
         inet_interfaces = 127.0.0.1\n\
         inet_protocols = ipv4\n\
         alias_maps =\n\
         alias_database =\n\
         local_recipient_maps = unix:passwd.byname\n\
         home_mailbox = Maildir/\n\
         recipient_delimiter = +\n\
         smtp_host_lookup = native\n\
         transport_maps = texthash:{d}/routes\n\
         message_size_limit = 104857600\n\
         mailbox_size_limit = 0\n\
         smtpd_authorized_xclient_hosts = 127.0.0.0/8\n\
         smtpd_sasl_auth_enable = yes\n\
         smtpd_sasl_type = cyrus\n\
         cyrus_sasl_config_path = {d}/sasl\n\
         smtpd_tls_security_level = may\n\
         smtpd_tls_loglevel = 1\n\
         smtpd_tls_cert_file = {d}/server.pem\n\
         smtpd_tls_key_file = {d}/server.key\n\
         smtpd_client_restrictions =\n\
         smtpd_helo_restrictions =\n\
         mynetworks = {RELAY_NETWORK}\n\
         smtpd_relay_restrictions = permit_sasl_authenticated, permit_mynetworks, reject_unauth_destination\n\
         smtpd_recipient_restrictions = check_recipient_access texthash:{d}/refusals\n"
    );
    fs::write(dir.join("main.cf"), main).unwrap();
    let services = [
        "pickup unix n - n 60 1 pickup",
        "cleanup unix n - n - 0 cleanup",
        "qmgr unix n - n 300 1 qmgr",
        "tlsmgr unix - - n 1000? 1 tlsmgr",
        "rewrite unix - - n - - trivial-rewrite",
        "bounce unix - - n - 0 bounce",
        "defer unix - - n - 0 bounce",
        "trace unix - - n - 0 bounce",
        "verify unix - - n - 1 verify",
        "flush unix n - n 1000? 0 flush",
        "proxymap unix - - n - - proxymap",
        "smtp unix - - n - - smtp",
        "relay unix - - n - - smtp",
        "showq unix n - n - - showq",
        "error unix - - n - - error",
        "retry unix - - n - - error",
        "local unix - n n - - local",
        "anvil unix - - n - 1 anvil",
        "scache unix - - n - 1 scache",
        "postlog unix-dgram n - n - 1 postlogd",
    ];
    let listener = match foreign {
        Foreign::Verified { reject_code, .. } => {
            let code = "unverified_recipient_reject_code=";
            let listener = recipe("127.0.0.1:10025 inet ").replace("127.0.0.1:10025", &address.to_string());
            assert!(listener.contains(&format!("{code}550\n")));
            let reject_code = reject_code.unwrap_or(550);
            listener.replace(&format!("{code}550\n"), &format!("{code}{reject_code}\n"))
        }
        Foreign::Unrouted | Foreign::Taken { .. } => format!("{address} inet n - n - - smtpd\n"),
    };
    fs::write(dir.join("master.cf"), format!("{listener}{}\n", services.join("\n"))).unwrap();
}

/// What the README tells to write, to the letter: the block whose first line begins with `first`.
fn recipe(first: &str) -> String {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let (_, block) =
        readme.split_once(&format!("```\n{first}")).unwrap_or_else(|| panic!("no block `{first}...`"));
    let (block, _) = block.split_once("```\n").unwrap();
    format!("{first}{block}")
}

fn exim_conf(dir: &Path, domain: &str, [address, public]: [SocketAddr; 2], foreign: Foreign) -> String {
    let d = dir.display();
    let refusals: String = REFUSALS
        .iter()
        .map(|(name, reply)| {
            let verb = if reply.starts_with('4') { "defer" } else { "deny" };
            // A semicolon ends nothing here, but a list would be split at a colon.
            format!("  {verb} recipients = {name}@{domain}\n    message = {reply}\n")
        })
        .collect();
    let ours = |recipe: String| recipe.replace("10025", &address.port().to_string());
    let verify = match foreign {
        Foreign::Unrouted | Foreign::Taken { .. } => String::new(),
        Foreign::Verified { .. } => ours(recipe("  deny condition = ")),
    };
    // Tests listen on loopback alone.
    let interfaces = ours(recipe("local_interfaces = ")).replace("::0 ; 0.0.0.0", "127.0.0.1");
    let (route, onward) = match foreign {
        Foreign::Unrouted => (String::new(), 25),
        Foreign::Taken { by } | Foreign::Verified { by, .. } => (
            format!(
                "foreign:\n  driver = manualroute\n  domains = {FOREIGN}\n  route_list = * {}\n  self = send\n  transport = onward\n\
                 \x20 no_more\n",
                by.ip()
            ),
            by.port(),
        ),
    };
    format!(
        "primary_hostname = mx.{domain}\n\
         domainlist local_domains = {domain}\n\
         spool_directory = {d}/queue\n\
         log_file_path = {d}/logs/%slog\n\
         {interfaces}\
         daemon_smtp_ports = {port}\n\
         tls_advertise_hosts =\n\
         host_lookup =\n\
         rfc1413_hosts =\n\
         keep_environment =\n\
         message_size_limit = 100M\n\
         smtp_accept_max = 100\n\
         smtp_accept_queue_per_connection = 0\n\
         acl_smtp_rcpt = rcpt\n\
         acl_smtp_data = data\n\
         begin acl\n\
         rcpt:\n\
         {refusals}\
         \x20 accept domains = +local_domains\n    endpass\n    verify = recipient\n\
         {verify}\
         \x20 accept hosts = 127.0.0.0/8\n\
         \x20 deny message = relay not permitted\n\
         data:\n  accept\n\
         begin routers\n\
         {route}\
         localuser:\n  driver = accept\n  domains = +local_domains\n  local_part_suffix = +*\n  local_part_suffix_optional\n\
         \x20 check_local_user\n  transport = maildir\n\
         begin transports\n\
         maildir:\n  driver = appendfile\n  maildir_format\n  directory = $home/Maildir\n  create_directory\n\
         \x20 return_path_add\n  envelope_to_add\n  delivery_date_add\n\
         onward:\n  driver = smtp\n  port = {onward}\n  hosts_avoid_tls = *\n\
         begin retry\n* * F,1h,5m\n\
         begin authenticators\n\
         plain_server:\n  driver = plaintext\n  public_name = PLAIN\n  server_prompts = :\n\
         \x20 server_condition = ${{if eq{{$auth3}}{{{PASSWORD}}}}}\n  server_set_id = $auth2\n",
        port = public.port(),
    )
}
