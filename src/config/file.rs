//! The configuration file: every key, its default and its range.
//!
//! The defaults are those of `config.toml` at the root of the repository; a test compares the two. A new key takes one
//! line here, a new table one function.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeTable;

use super::problem::{Problem, Problems, near};
use super::section::{Findings, Key, Leftover, Section, excerpt, line_of, one_of};
use super::{
    Action, Auth, BareNewline, Config, Listen, ListenTls, Log, LogFormat, LogLevel, NamedFiles, Process,
    Sender, Session, Submission, Tls, classify, detection, notify, upstream, value,
};
use crate::auth::{GuessLimits, Mechanism};
use crate::guard::Rules;
use crate::guard::ledger::{Count, Detection, MAX_LIMIT, Policy};
use crate::guard::window::Rule;
use crate::quarantine::spool::Limits;
use crate::sender::Policy as SenderPolicy;
use crate::units::{DAY, HOUR, MINUTE, SECOND};
use crate::upstream::KeyPair;

/// What the TOML parser says of a key or table that is repeated.
const TWICE: &str = "duplicate key";

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// The range of `invalid_recipients`, in `[limit]` and in `[[account]]`.
pub(super) const LIMITS: RangeInclusive<u32> = 1..=MAX_LIMIT;
/// The range of `period`, likewise.
pub(super) const PERIODS: RangeInclusive<Duration> = SECOND..=Duration::from_secs(30 * 86_400);

const MECHANISMS: [(&str, Mechanism); 3] =
    [("PLAIN", Mechanism::Plain), ("LOGIN", Mechanism::Login), ("SCRAM-SHA-256", Mechanism::ScramSha256)];

/// Reads a whole configuration file. What follows from our name or the data folder, such as the default of `[notify] from`,
/// follows from those `in_force`, if given, whatever the file says.
pub(super) fn read(
    text: &str,
    file: &Path,
    machine: &str,
    in_force: Option<&Config>,
) -> Result<Config, Problems> {
    let (root, errors) = DeTable::parse_recoverable(text);
    let (config, mut findings) = interpret(text, root.get_ref(), file, machine, in_force);
    let leftovers = std::mem::take(&mut findings.leftovers);
    let keys = if leftovers.is_empty() { Vec::new() } else { keys() };
    findings.problems.extend(leftovers.iter().map(|left| unknown_key(left, &keys)));
    findings.problems = with_syntax(text, findings.problems, &errors);
    if findings.problems.is_empty() {
        return Ok(config);
    }
    findings.problems.sort_by_key(|problem| problem.line);
    Err(Problems { file: file.to_owned(), list: findings.problems })
}

/// Every key that a configuration file can have.
pub(super) fn keys() -> Vec<Key> {
    // The keys of a repeatable table are only read if there is such a table.
    let text = "[[listen]]\n[[certificate]]\n[[account]]\n[[classify]]";
    let (root, _) = DeTable::parse_recoverable(text);
    let (_, findings) = interpret(text, root.get_ref(), Path::new(""), "localhost", None);
    findings.keys
}

/// Reads all tables. A wrong or missing value takes its default, so the [`Config`] is valid only if the findings have
/// no problems.
fn interpret<'a>(
    text: &'a str,
    root: &'a DeTable<'a>,
    file: &Path,
    machine: &str,
    in_force: Option<&Config>,
) -> (Config, Findings) {
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut top = Section::top(text, folder, root);

    let hostname = hostname(&mut top, machine);
    let name = in_force.map_or(&hostname, |config| &config.hostname);
    let data_dir = folder.join(top.text("data_dir", "/var/lib/gatepost".to_owned(), value::path));
    let own_folder = in_force.map_or(&data_dir, |config| &config.data_dir);
    let listen = listeners(&mut top);
    let tls = top.table("tls", "[tls]", tls);
    let certificates = top.tables("certificate", "[[certificate]]", |section, _| certificate(section));
    let upstream = top.table("upstream", "[upstream]", |section| upstream::read(section, name, &listen));
    let (relay_hosts, hosts_meant) = top.table("relay", "[relay]", relay);
    let auth = top.table("auth", "[auth]", |section| auth(section, hosts_meant));
    let (mut policy, action, unblock_after) = top.table("limit", "[limit]", limit);
    policy.detection = top.table("detection", "[detection]", detection::detection);
    policy.rules = top.tables("account", "[[account]]", |section, earlier| {
        detection::account(section, &policy.detection, earlier)
    });
    let classify = top.tables("classify", "[[classify]]", |section, _| classify::read(section));
    let quarantine = top.table("quarantine", "[quarantine]", quarantine);
    let notify = top.table("notify", "[notify]", |section| notify::read(section, own_folder, name));
    let sender = top.table("sender", "[sender]", sender);
    let submission = top.table("submission", "[submission]", submission);
    let session = top.table("session", "[session]", session);
    let log = top.table("log", "[log]", log);
    let process = top.table("process", "[process]", process);
    let mut findings = top.finish();

    let config = Config {
        file: Some(file.to_owned()),
        files: NamedFiles { file: file.to_owned(), list: std::mem::take(&mut findings.files) },
        hostname,
        data_dir,
        listen,
        tls,
        certificates,
        upstream,
        auth,
        relay_hosts,
        policy,
        action,
        unblock_after,
        classify: Rules::new(classify),
        quarantine,
        notify,
        sender,
        submission,
        session,
        log,
        process,
    };
    (config, findings)
}

fn hostname(top: &mut Section<'_>, machine: &str) -> String {
    let written = top.text("hostname", String::new(), |text| match text {
        "" => Ok(String::new()),
        name => value::domain(name).map(|_| name.to_owned()),
    });
    if !written.is_empty() || !top.sound(&["hostname"]) {
        return written;
    }
    if value::domain(machine).is_err() {
        let machine = machine.escape_debug();
        top.problem(
            "hostname",
            format!("a domain name such as mail.example.org; the machine's own, `{machine}`, is none"),
        );
    }
    machine.to_owned()
}

fn listeners(top: &mut Section<'_>) -> Vec<Listen> {
    let listeners = top.tables("listen", "[[listen]]", listener);
    if !top.has("listen") {
        let any = |port| (std::net::Ipv6Addr::UNSPECIFIED, port).into();
        return vec![
            Listen { address: any(587), tls: ListenTls::StartTls, proxy_protocol: Vec::new() },
            Listen { address: any(465), tls: ListenTls::Implicit, proxy_protocol: Vec::new() },
        ];
    }
    if listeners.is_empty() && top.sound(&["listen"]) {
        top.problem(
            "listen",
            "at least one [[listen]], or none of this key for the default ports 587 and 465",
        );
    }
    listeners
}

fn listener(section: &mut Section<'_>, earlier: &[Listen]) -> Listen {
    let none = (std::net::Ipv6Addr::UNSPECIFIED, 0).into();
    let address = section.text("address", none, value::listener);
    let tls = section.choice(
        "tls",
        ListenTls::StartTls,
        &[("starttls", ListenTls::StartTls), ("implicit", ListenTls::Implicit)],
    );
    let proxy_protocol = section.list("proxy_protocol", Vec::new(), value::network);
    if !section.has("address") {
        section.problem("address", "missing: an IP address and a port such as [::]:587");
    } else if let Some(other) = earlier.iter().find(|other| overlap(other.address, address)) {
        let other = other.address;
        section
            .problem("address", format!("an address that can be open beside {other} of another [[listen]]"));
    }
    Listen { address, tls, proxy_protocol }
}

/// Whether two listeners cannot be open at once. `[::]` covers IPv4 too.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let covers = |wide: IpAddr, narrow: IpAddr| match wide {
        IpAddr::V6(wide) => wide.is_unspecified(),
        IpAddr::V4(wide) => wide.is_unspecified() && narrow.is_ipv4(),
    };
    let scope = |address: SocketAddr| match address {
        SocketAddr::V6(v6) => v6.scope_id(),
        SocketAddr::V4(_) => 0,
    };
    let (here, there) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() == other.port()
        && one.port() != 0
        && (here == there && scope(one) == scope(other) || covers(here, there) || covers(there, here))
}

fn tls(section: &mut Section<'_>) -> Tls {
    const CERTIFICATE: &str = "certs/server.crt";
    const PRIVATE_KEY: &str = "certs/server.key";
    let certificate = section.path("certificate", CERTIFICATE);
    let private_key = section.path("private_key", PRIVATE_KEY);
    let client_ca = section.optional_path("client_ca");
    let folder = section.folder();
    let may_generate = certificate == folder.join(CERTIFICATE) && private_key == folder.join(PRIVATE_KEY);
    Tls { certificate, private_key, may_generate, client_ca }
}

fn certificate(section: &mut Section<'_>) -> KeyPair {
    for key in ["certificate", "private_key"] {
        if !section.has(key) {
            section.problem(key, "missing: the path of a PEM file");
        }
    }
    KeyPair { certificate: section.path("certificate", ""), private_key: section.path("private_key", "") }
}

/// Returns the networks, and whether any were intended: one that does not parse counts as intended.
fn relay(section: &mut Section<'_>) -> (Vec<IpNet>, bool) {
    let hosts = section.list("hosts", Vec::new(), value::network);
    let meant = !hosts.is_empty() || !section.sound(&["hosts"]);
    (hosts, meant)
}

fn auth(section: &mut Section<'_>, hosts_meant: bool) -> Auth {
    let mut seen: Vec<Mechanism> = Vec::new();
    let mechanisms =
        section.list("mechanisms", MECHANISMS.map(|(_, mechanism)| mechanism).to_vec(), |text| {
            let found = MECHANISMS.iter().find(|(name, _)| *name == text).map(|(_, mechanism)| *mechanism);
            match found {
                Some(again) if seen.contains(&again) => Err("each mechanism once".to_owned()),
                Some(mechanism) => {
                    seen.push(mechanism);
                    Ok(mechanism)
                }
                None => Err(one_of(&MECHANISMS)),
            }
        });
    if mechanisms.is_empty() && !hosts_meant && section.sound(&["mechanisms"]) {
        section.problem(
            "mechanisms",
            format!("at least one of {}, since without [relay] hosts nobody could send", one_of(&MECHANISMS)),
        );
    }
    let channel_binding = section.flag("channel_binding", true);
    let users = section.path("users", "users");
    let guesses = GuessLimits {
        per_address: section.whole("max_guesses_per_ip", 50, 0..=10_000),
        per_account: section.whole("max_guesses_per_account", 100, 0..=10_000),
        period: section.duration("guess_period", HOUR, SECOND..=30 * DAY),
    };
    let max_checks = section.whole("max_checks", 0, 0..=1_024);
    Auth { mechanisms, channel_binding, users, guesses, max_checks }
}

fn limit(section: &mut Section<'_>) -> (Policy, Action, Option<Duration>) {
    let policy = Policy {
        invalid_recipients: section.whole("invalid_recipients", Rule::DEFAULT.limit, LIMITS),
        period: section.duration("period", Rule::DEFAULT.period, PERIODS),
        count: section.choice(
            "count",
            Rule::DEFAULT.count,
            &[("distinct", Count::Distinct), ("attempts", Count::Attempts)],
        ),
        observe: section.flag("observe", false),
        exempt: section.list("exempt", Vec::new(), value::account),
        detection: Detection::DEFAULT,
        rules: Vec::new(),
    };
    let action =
        section.choice("action", Action::Park, &[("park", Action::Park), ("refuse", Action::Refuse)]);
    let unblock_after = section.duration_or("unblock_after", "never", None, SECOND..=36_500 * DAY);
    (policy, action, unblock_after)
}

fn process(section: &mut Section<'_>) -> Process {
    let user = section.text("user", String::new(), |text| {
        if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == ':' || c == '/') {
            return Err("a user's name such as gatepost, or \"\" for whoever starts it".to_owned());
        }
        Ok(text.to_owned())
    });
    let sandbox = section.flag("sandbox", true);
    Process { user, sandbox }
}

fn quarantine(section: &mut Section<'_>) -> Limits {
    Limits {
        max_size: section.size("max_size", 10 * GIB, KIB..=1024 * TIB),
        max_size_per_account: section.size("max_size_per_account", GIB, KIB..=1024 * TIB),
        expire_after: section.duration_or("expire_after", "never", Some(30 * DAY), SECOND..=36_500 * DAY),
    }
}

fn sender(section: &mut Section<'_>) -> Sender {
    Sender {
        policy: section.choice(
            "policy",
            SenderPolicy::Any,
            &[("any", SenderPolicy::Any), ("own", SenderPolicy::Own), ("map", SenderPolicy::Map)],
        ),
        map: section.path("map", "senders"),
        from_header: section.flag("from_header", false),
    }
}

fn submission(section: &mut Section<'_>) -> Submission {
    Submission {
        sender_header: section.flag("sender_header", false),
        hide_client: section.flag("hide_client", false),
    }
}

fn session(section: &mut Section<'_>) -> Session {
    let max_header_size = section.size("max_header_size", 256 * KIB, KIB..=64 * MIB);
    let max_buffered = section.size("max_buffered", 256 * MIB, 0..=TIB);
    Session {
        max_connections: section.whole("max_connections", 10_000, 1..=1_000_000),
        max_connections_per_ip: section.whole("max_connections_per_ip", 100, 1..=1_000_000),
        max_new_connections_per_ip: section.whole("max_new_connections_per_ip", 0, 0..=1_000_000),
        max_connections_per_account: section.whole("max_connections_per_account", 0, 0..=1_000_000),
        max_transactions: section.whole("max_transactions", 0, 0..=1_000_000),
        max_errors: section.whole("max_errors", 10, 1..=1_000),
        // RFC 5321 4.5.3.1.7 requires 64K octets; whoever sets less knows why.
        max_message_size: section.size("max_message_size", 50 * MIB, KIB..=TIB),
        max_header_size: usize::try_from(max_header_size).unwrap_or(usize::MAX),
        max_recipients: section.whole("max_recipients", 1_000, 1..=100_000),
        max_buffered: usize::try_from(max_buffered).unwrap_or(usize::MAX),
        min_rate: section.whole("min_rate", 100, 0..=1_000_000),
        idle_timeout: section.duration("idle_timeout", 5 * MINUTE, SECOND..=DAY),
        auth_timeout: section.duration("auth_timeout", MINUTE, SECOND..=DAY),
        tls_timeout: section.duration("tls_timeout", 30 * SECOND, SECOND..=DAY),
        shutdown_timeout: section.duration("shutdown_timeout", 30 * SECOND, Duration::ZERO..=HOUR),
        bare_newline: section.choice(
            "bare_newline",
            BareNewline::Reject,
            &[("reject", BareNewline::Reject), ("normalize", BareNewline::Normalize)],
        ),
        bare_newline_hosts: section.list("bare_newline_hosts", Vec::new(), value::network),
    }
}

fn log(section: &mut Section<'_>) -> Log {
    Log {
        format: section.choice(
            "format",
            LogFormat::Auto,
            &[("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)],
        ),
        level: section.choice(
            "level",
            LogLevel::Info,
            &[
                ("error", LogLevel::Error),
                ("warn", LogLevel::Warn),
                ("info", LogLevel::Info),
                ("debug", LogLevel::Debug),
                ("trace", LogLevel::Trace),
            ],
        ),
    }
}

/// The problem of an unknown key: says where the key belongs, or which one was probably meant.
fn unknown_key(left: &Leftover, keys: &[Key]) -> Problem {
    // Some keys share their name with a table: `[upstream] tls`.
    let is_table = |key: &Key| {
        key.table.is_empty() && keys.iter().any(|other| other.table.trim_matches(['[', ']']) == key.name)
    };
    let alike = |key: &&Key| key.table == left.table && is_table(key) == left.is_table;
    let alike: Vec<&str> = keys.iter().filter(alike).map(|key| key.name).collect();
    let elsewhere = keys.iter().find(|key| key.name == left.name && !left.is_table && !is_table(key));
    let kind = if left.is_table { "table" } else { "key" };
    let remedy = match (elsewhere, near(&left.name, alike.iter().copied())) {
        (Some(Key { table: "", .. }), _) => {
            "unknown here; it stands at the top of the file, before the first [table]".to_owned()
        }
        (Some(Key { table, .. }), _) => format!("unknown here; it belongs to {table}"),
        (None, Some(name)) if left.is_table => {
            let title = keys.iter().map(|key| key.table).find(|table| table.trim_matches(['[', ']']) == name);
            format!("unknown table; did you mean {}?", title.unwrap_or(name))
        }
        (None, Some(name)) => format!("unknown key; did you mean {name}?"),
        (None, None) => format!("unknown {kind}; there are {}", alike.join(", ")),
    };
    let name = if left.is_table { format!("[{}]", left.name) } else { left.name.clone() };
    let subject = if left.table.is_empty() { name } else { format!("{} {name}", left.table) };
    Problem { line: Some(left.line), subject, remedy }
}

/// Adds syntax errors, one problem per line, and removes problems that only follow from them.
fn with_syntax(text: &str, mut problems: Vec<Problem>, errors: &[toml::de::Error]) -> Vec<Problem> {
    let mut broken: Vec<Problem> = Vec::new();
    for error in errors {
        let problem = syntax(text, error);
        let known = broken.iter().any(|other| other.line == problem.line || repeats(text, other, &problem));
        if !known {
            broken.push(problem);
        }
    }
    // Below a broken header it is unclear which table a key belongs to.
    let header =
        broken.iter().filter(|problem| problem.subject.starts_with('[')).map(|problem| problem.line).min();
    problems.retain(|problem| {
        broken.iter().all(|other| other.line != problem.line)
            && header.is_none_or(|header| problem.line < header)
    });
    problems.append(&mut broken);
    problems
}

/// Whether a key is a duplicate only because its whole table is one.
fn repeats(text: &str, table: &Problem, key: &Problem) -> bool {
    let (Some(header), Some(line)) = (table.line, key.line) else { return false };
    let is_header = |line: &str| line.trim_start().starts_with('[');
    let mut between = text.lines().skip(header).take(line.saturating_sub(header));
    table.subject.starts_with('[')
        && table.remedy == key.remedy
        && key.remedy == TWICE
        && line > header
        && !between.any(is_header)
}

/// A syntax error; shown with the whole line, since there may be no key.
fn syntax(text: &str, error: &toml::de::Error) -> Problem {
    let line = error.span().map(|span| line_of(text, span.start));
    let written = line.and_then(|line| text.lines().nth(line - 1)).unwrap_or_default().trim();
    let remedy = error.message().lines().collect::<Vec<_>>().join(", ");
    Problem { line, subject: excerpt(written), remedy }
}
