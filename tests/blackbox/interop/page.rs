//! `docs/interop.md`: drawn from what these tests declare, with the versions of the run in which all of them passed.
//!
//! A run of all writes `target/interop.md`, or, with `INTEROP_PAGE=write`, `docs/interop.md`. That the page in the repository is what is
//! declared here, whatever the versions, is a test that needs nothing installed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use super::clients::{CLIENTS, Client, Port, WhenRefused, version_of, version_of_package};
use super::letters::{Keeps, Kind};

/// What gsasl is tried with; the first where it speaks TLS itself.
const GSASL_MECHANISMS: [&str; 4] = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN"];

pub(crate) fn gsasl_mechanisms(port: Port) -> &'static [&'static str] {
    match port {
        Port::Submission => &GSASL_MECHANISMS,
        Port::Submissions => &GSASL_MECHANISMS[1..],
    }
}

const GSASL: &str = "gsasl";
const POSTFIX: &str = "Postfix";
const EXIM_AS_CLIENT: &str = "Exim as a client";
const POSTFIX_AS_CLIENT: &str = "Postfix as a client";

/// By what has a version on the page.
type Versions = BTreeMap<String, String>;

/// What passed in this run.
static PASSED: Mutex<Versions> = Mutex::new(Versions::new());

pub(crate) fn client_passed(client: &Client) {
    passed(&[(client.name, (client.version)()), (POSTFIX, version_of_package("postfix"))]);
}

/// Who stands in front of each of [`Upstream`].
pub(crate) const UPSTREAM_CLIENTS: [&str; 4] = ["swaks", "curl", "Python smtplib", "nodemailer"];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Upstream {
    Exim,
    OpenSmtpd,
    Dovecot,
    Hostile,
}

impl Upstream {
    const ALL: [Self; 4] = [Self::Exim, Self::OpenSmtpd, Self::Dovecot, Self::Hostile];

    fn name(self) -> &'static str {
        match self {
            Self::Exim => "Exim",
            Self::OpenSmtpd => "OpenSMTPD",
            Self::Dovecot => "Dovecot submission",
            Self::Hostile => "scripted, hostile",
        }
    }

    fn package(self) -> Option<&'static str> {
        match self {
            Self::Exim => Some("exim4-daemon-light"),
            Self::OpenSmtpd => Some("opensmtpd"),
            Self::Dovecot => Some("dovecot-submissiond"),
            Self::Hostile => None,
        }
    }

    fn note(self) -> &'static str {
        match self {
            Self::Exim => "without XCLIENT; its refusals have no enhanced status code",
            Self::OpenSmtpd => "no PIPELINING in 6.8, no CHUNKING, no XCLIENT",
            Self::Dovecot => {
                "Gatepost logs in with a login of its own; the service relays to Postfix, where the mail was compared"
            }
            Self::Hostile => {
                "every reply is odd, but still one reply: bare CR, control characters, 3,000 octets in a line, 100 lines, no text, codes within texts, sent octet by octet"
            }
        }
    }
}

pub(crate) fn upstream_passed(upstream: Upstream) {
    passed(&[(upstream.name(), upstream.package().map_or_else(|| "-".to_owned(), version_of_package))]);
}

/// Programs of others that look for holes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tester {
    Testssl,
    Sslyze,
    Injection,
    Nmap,
}

impl Tester {
    const ALL: [Self; 4] = [Self::Testssl, Self::Sslyze, Self::Injection, Self::Nmap];

    fn name(self) -> &'static str {
        match self {
            Self::Testssl => "testssl.sh",
            Self::Sslyze => "SSLyze",
            Self::Injection => "command-injection-tester",
            Self::Nmap => "nmap's scripts",
        }
    }

    fn version(self) -> String {
        match self {
            Self::Testssl => version_of(&["dpkg-query", "-W", "-f", "${Version}", "testssl.sh"]),
            Self::Nmap => version_of(&["nmap", "--version"]),
            Self::Sslyze => version_of_python("sslyze"),
            Self::Injection => version_of_python("command-injection-tester"),
        }
    }

    fn ports(self) -> &'static str {
        match self {
            Self::Injection => "587",
            _ => "587, 465",
        }
    }

    fn asserted(self) -> &'static str {
        match self {
            Self::Testssl => {
                "protocols, suites, forward secrecy, server defaults, vulnerabilities: nothing above LOW, except that the tests' own authority has no revocation list"
            }
            Self::Sslyze => {
                "only TLS 1.2 and 1.3, only AEAD with forward secrecy; no compression, early data, CCS injection, Heartbleed, ROBOT, renegotiation by clients"
            }
            Self::Injection => "a command in cleartext after STARTTLS is not run within TLS",
            Self::Nmap => {
                "no open relay, no users disclosed (VRFY, EXPN, RCPT), none of the CVEs that it knows, suites of grade A"
            }
        }
    }
}

pub(crate) fn tester_passed(tester: Tester) {
    passed(&[(tester.name(), tester.version())]);
}

fn version_of_python(package: &str) -> String {
    let pip = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/mta/python/bin/pip");
    version_of(&[pip.to_str().unwrap(), "show", package])
}

/// An MTA that sends through us.
pub(crate) fn satellite_passed(name: &'static str) {
    let package = if name == "Exim" { "exim4-daemon-light" } else { "postfix" };
    passed(&[(if name == "Exim" { EXIM_AS_CLIENT } else { POSTFIX_AS_CLIENT }, version_of_package(package))]);
}

pub(crate) fn gsasl_passed() {
    passed(&[(GSASL, version_of(&["gsasl", "--version"]))]);
}

fn passed(news: &[(&str, String)]) {
    let mut passed = PASSED.lock().unwrap();
    passed.extend(news.iter().map(|(name, version)| ((*name).to_owned(), version.clone())));
    if names().iter().all(|name| passed.contains_key(*name)) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let is_asked_for = std::env::var("INTEROP_PAGE").is_ok_and(|value| value == "write");
        let path = root.join(if is_asked_for { "docs/interop.md" } else { "target/interop.md" });
        std::fs::write(path, page(&passed)).unwrap();
    }
}

/// All that has a version.
fn names() -> Vec<&'static str> {
    let upstreams =
        Upstream::ALL.iter().filter(|upstream| upstream.package().is_some()).map(|upstream| upstream.name());
    let clients = CLIENTS.iter().map(|client| client.name);
    clients
        .chain([GSASL, POSTFIX, EXIM_AS_CLIENT, POSTFIX_AS_CLIENT])
        .chain(upstreams)
        .chain(Tester::ALL.map(Tester::name))
        .collect()
}

fn cell(client: &Client, kind: Kind, note: usize) -> String {
    let compared = match client.keeps {
        Keeps::Message => "message",
        Keeps::Body => "body",
    };
    match (kind, client.when_refused) {
        (Kind::Refused, WhenRefused::AlwaysGivesUp) => format!("gives up [{note}]"),
        (Kind::Refused, WhenRefused::GivesUp) => format!("gives up, or {compared} [{note}]"),
        _ => compared.to_owned(),
    }
}

fn page(versions: &Versions) -> String {
    let version = |name: &str| versions.get(name).map_or("", String::as_str);
    let mut page = String::from(
        "# What works with what\n\n\
         The tests write this page: `INTEROP_PAGE=write cargo test --test blackbox -- --include-ignored interop testers` (after `tests/install`). Each\n\
         cell is a mail that a client sent through Gatepost, on the port named in the row, with TLS verified and a log-in, to an MTA that is not ours.\n\n\
         **message**: header and body arrived octet for octet, after the trace fields that Gatepost and the MTA put in front. **body**: the client\n\
         writes the header itself; the body arrived octet for octet. **gives up**: once a recipient is refused, the client sends nothing and says so,\n\
         and nobody got the mail. 8-bit is UTF-8, and with *message* also octets that are not UTF-8. Each mail has lines that begin with dots, a line\n\
         that is a single dot, and blanks at line ends. The refused recipient counted, once. Each client was also given wrong passwords with each\n\
         mechanism, and reported that.\n\n",
    );
    page += &format!("## Clients, in front of Postfix {}\n", version(POSTFIX));
    page += "| client | version | log-ins | port |";
    for kind in Kind::ALL {
        page += &format!(" {} |", kind.title());
    }
    page += &format!("\n|{}\n", " --- |".repeat(4 + Kind::ALL.len()));
    for (index, client) in CLIENTS.iter().enumerate() {
        let mut mechanisms: Vec<String> =
            client.mechanisms.iter().map(|name| name.split(' ').next().unwrap().to_uppercase()).collect();
        mechanisms.dedup();
        mechanisms.truncate(3);
        if client.mechanisms.iter().any(|name| name.ends_with(" none")) {
            mechanisms = vec!["PLAIN".to_owned(), "LOGIN".to_owned()];
        }
        for port in Port::BOTH {
            page += &format!(
                "| {} [{}] | {} | {} | {} |",
                client.name,
                index + 1,
                version(client.name),
                mechanisms.join(", "),
                port.number()
            );
            for kind in Kind::ALL {
                page += &format!(" {} |", cell(client, kind, index + 1));
            }
            page.push('\n');
        }
    }
    for port in Port::BOTH {
        page += &format!(
            "| gsasl | {} | {} | {} | logs in, sends nothing | | | | |\n",
            version(GSASL),
            gsasl_mechanisms(port).join(", "),
            port.number()
        );
    }
    page.push('\n');
    for (index, client) in CLIENTS.iter().enumerate() {
        page += &format!("{}. {}: {}\n", index + 1, client.name, client.note);
    }
    page += "\n## Upstreams\n| upstream | version | clients, each on 587 and 465 |";
    for kind in Kind::ALL {
        page += &format!(" {} |", kind.title());
    }
    page += &format!(" remarks |\n|{}\n", " --- |".repeat(4 + Kind::ALL.len()));
    for upstream in Upstream::ALL {
        let number = if upstream.package().is_some() { version(upstream.name()) } else { "-" };
        page += &format!("| {} | {number} | {} |", upstream.name(), UPSTREAM_CLIENTS.join(", "));
        page += &" message |".repeat(Kind::ALL.len());
        page += &format!(" {} |\n", upstream.note());
    }
    page += &format!(
        "\n- **MTAs as clients**, which send 4 MiB through Gatepost as relay hosts: Exim {} (by BDAT) and Postfix {}. The recipient that they verified with us, and that we refused, counted.\n\
         - **CHUNKING**: messages in chunks of 7,001 octets, in chunks of 1 MiB and in one chunk reach Postfix and Exim as they were sent.\n\
         \x20 **BINARYMIME** needs an upstream that offers it, which neither does: all 256 octets pass Dovecot's submission service, by BDAT on both\n\
         \x20 sides of it, to a scripted MTA. Dovecot turns a bare LF into CRLF, Gatepost does not.\n\
         - **Replies that break SMTP**, at each place of the dialogue (bare LF, two replies, other codes, other protocols, a reply without an end): the\n\
         \x20 client gets 45x, nothing counts as accepted, and the next message goes through.\n",
        version(EXIM_AS_CLIENT),
        version(POSTFIX_AS_CLIENT)
    );
    page += "\n## Testers that others wrote\n| tester | version | ports | what is asserted |\n| --- | --- | --- | --- |\n";
    for tester in Tester::ALL {
        page += &format!(
            "| {} | {} | {} | {} |\n",
            tester.name(),
            version(tester.name()),
            tester.ports(),
            tester.asserted()
        );
    }
    page += "\nTwo kinds of tester were looked for in Debian, PyPI, npm and crates.io, and not found. One is a tester of SMTP smuggling:\n\
             SMTP-Smuggling-Tools and smtpsmug are not in a registry. tests/blackbox/smuggling.rs sends their sequences, and every other dot between up\n\
             to two of CR, LF and NUL on either side, by DATA and BDAT, and judges by the octets that the upstream received and by the mailboxes of the\n\
             MTAs above. The other is a tester of response injection into an SMTP client: tests/dialogue/injection-*.smtp and 3207-*.smtp do that.\n";
    page
}

/// The page in the repository says what these tests declare; versions may differ.
#[test]
fn the_page_is_what_the_tests_declare() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/interop.md");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    // The versions in it, by the place where one belongs.
    let marked =
        page(&names().iter().map(|name| ((*name).to_owned(), format!("\u{0}{name}\u{0}"))).collect());
    let mut rest = committed.as_str();
    let mut place = 0;
    for (number, part) in marked.split('\u{0}').enumerate() {
        if number % 2 == 1 {
            // A version: what stands there until the text goes on.
            let end = rest.find([' ', '\n']).unwrap_or(rest.len());
            let end = rest[..end].trim_end_matches(['.', ',', ')']).len();
            assert!(rest[..end].contains('.'), "docs/interop.md has no version of {part} at octet {place}");
            rest = &rest[end..];
            place += end;
            continue;
        }
        let Some(after) = rest.strip_prefix(part) else {
            let same = part.bytes().zip(rest.bytes()).take_while(|(one, other)| one == other).count();
            let near = |text: &str| {
                text.get(same.saturating_sub(20)..).unwrap_or(text).chars().take(80).collect::<String>()
            };
            panic!(
                "docs/interop.md is not what the tests declare, at octet {}: `{}` instead of `{}`; \
                 INTEROP_PAGE=write cargo test --test blackbox -- --include-ignored interop testers writes it anew",
                place + same,
                near(rest),
                near(part)
            );
        };
        rest = after;
        place += part.len();
    }
    assert_eq!(rest, "", "docs/interop.md goes on where the tests declare nothing");
}
