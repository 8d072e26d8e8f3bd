//! How each client is told to send a letter: in its own words, with TLS verified, with the log-in that is asked for.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use super::letters::{Keeps, Kind, Letter, SENDER, lf};
use crate::support::gatepost::{Gatepost, PASSWORD};
use crate::support::program::{Finished, run, run_within};

/// The longest that a client may take for one letter, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Port {
    /// 587: STARTTLS.
    Submission,
    /// 465: implicit TLS.
    Submissions,
}

impl Port {
    pub(crate) const BOTH: [Self; 2] = [Self::Submission, Self::Submissions];

    pub(crate) fn address(self, gatepost: &Gatepost) -> SocketAddr {
        match self {
            Self::Submission => gatepost.starttls,
            Self::Submissions => gatepost.implicit,
        }
    }

    /// As it is known.
    pub(crate) fn number(self) -> u16 {
        match self {
            Self::Submission => 587,
            Self::Submissions => 465,
        }
    }
}

/// One run of a client.
pub(crate) struct Post<'a> {
    pub(crate) gatepost: &'a Gatepost,
    pub(crate) port: Port,
    pub(crate) mechanism: &'a str,
    pub(crate) password: &'a str,
    pub(crate) letter: &'a Letter,
    /// Whether it is told to go on when a recipient is refused, where it can be told so.
    pub(crate) goes_on: bool,
}

impl Post<'_> {
    fn port_number(&self) -> String {
        self.port.address(self.gatepost).port().to_string()
    }

    fn is_implicit(&self) -> bool {
        self.port == Port::Submissions
    }

    fn ca(&self) -> String {
        self.gatepost.ca().display().to_string()
    }

    /// Writes a file of this name for the client.
    fn file(&self, name: &str, octets: &[u8]) -> PathBuf {
        let path = self.gatepost.folder().join(name);
        std::fs::write(&path, octets).unwrap();
        path
    }
}

/// What a client left behind.
#[derive(Debug)]
pub(crate) struct Sent {
    /// Its exit status.
    pub(crate) code: i32,
    pub(crate) said: String,
}

impl From<Finished> for Sent {
    fn from(finished: Finished) -> Self {
        let code = finished.status.code().unwrap_or(-1);
        Self { code, said: format!("{}{}", finished.stdout, finished.stderr) }
    }
}

/// What a client does when one recipient of three is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WhenRefused {
    /// The others get the letter.
    GoesOn,
    /// Nobody gets it; it can be told otherwise.
    GivesUp,
    /// Nobody gets it, whatever it is told.
    AlwaysGivesUp,
}

pub(crate) struct Client {
    pub(crate) name: &'static str,
    pub(crate) version: fn() -> String,
    pub(crate) mechanisms: &'static [&'static str],
    pub(crate) keeps: Keeps,
    pub(crate) when_refused: WhenRefused,
    /// What a reader should know of that.
    pub(crate) note: &'static str,
    pub(crate) send: fn(&Post<'_>) -> Sent,
    /// Whether it took the answer to its log-in for "wrong password".
    pub(crate) denied: fn(&Sent) -> bool,
}

pub(crate) const CLIENTS: &[Client] = &[
    Client {
        name: "swaks",
        version: || version_of(&["swaks", "--version"]),
        mechanisms: &["PLAIN", "LOGIN"],
        keeps: Keeps::Message,
        when_refused: WhenRefused::GoesOn,
        note: "Adds a CRLF to the file, so the test gives it a file without the last one. On 465 with `--pipeline`: MAIL, every RCPT and DATA in one go.",
        send: swaks,
        // "AUTH was tried, and refused".
        denied: |sent| sent.code == 28,
    },
    Client {
        name: "msmtp",
        version: || version_of(&["msmtp", "--version"]),
        mechanisms: &["plain", "login", "scram-sha-256"],
        keeps: Keeps::Message,
        when_refused: WhenRefused::AlwaysGivesUp,
        note: "Stops at the first RCPT that is refused, with exit status 65; nobody gets the message.",
        send: msmtp,
        denied: |sent| sent.code != 0 && sent.said.contains("authentication failed"),
    },
    Client {
        name: "curl",
        version: || version_of(&["curl", "--version"]),
        mechanisms: &["PLAIN", "LOGIN"],
        keeps: Keeps::Message,
        when_refused: WhenRefused::GivesUp,
        note: "Stops at the first RCPT that is refused, with exit status 55, and nobody gets the message; with `--mail-rcpt-allowfails` the others do. Both are tested.",
        send: curl,
        // "Log-in denied".
        denied: |sent| sent.code == 67,
    },
    Client {
        name: "Python smtplib",
        version: || version_of(&["python3", "--version"]),
        mechanisms: &["PLAIN", "LOGIN", "PLAIN none", "LOGIN none"],
        keeps: Keeps::Message,
        when_refused: WhenRefused::GoesOn,
        note: "Logs in with and without an initial response.",
        send: smtplib,
        denied: |sent| sent.code == 3,
    },
    Client {
        name: "git send-email",
        version: || version_of(&["/usr/bin/git", "--version"]),
        mechanisms: &["PLAIN", "LOGIN"],
        keeps: Keeps::Body,
        when_refused: WhenRefused::AlwaysGivesUp,
        note: "Stops at the first RCPT that is refused; nobody gets the message.",
        send: git_send_email,
        denied: |sent| sent.code != 0 && sent.said.contains("5.7.8"),
    },
    Client {
        name: "mutt",
        version: || version_of(&["mutt", "-v"]),
        mechanisms: &["plain", "login", "scram-sha-256"],
        keeps: Keeps::Body,
        when_refused: WhenRefused::AlwaysGivesUp,
        note: "Stops at the first RCPT that is refused; nobody gets the message.",
        send: mutt,
        denied: |sent| sent.code != 0 && sent.said.contains("authentication failed"),
    },
    Client {
        name: "s-nail",
        version: || version_of(&["s-nail", "-:/", "-V"]),
        mechanisms: &["plain", "login"],
        keeps: Keeps::Body,
        when_refused: WhenRefused::AlwaysGivesUp,
        note: "Stops at the first RCPT that is refused; nobody gets the message.",
        send: s_nail,
        denied: |sent| sent.code != 0 && sent.said.contains("5.7.8"),
    },
    Client {
        name: "nodemailer",
        version: || version_of_package("node-nodemailer"),
        mechanisms: &["PLAIN", "LOGIN"],
        keeps: Keeps::Message,
        when_refused: WhenRefused::GoesOn,
        note: "Debian's package of the npm module.",
        send: nodemailer,
        denied: |sent| sent.code == 3,
    },
    Client {
        name: "Jakarta Mail",
        version: || version_of_package("libjakarta-mail-java"),
        mechanisms: &["PLAIN", "LOGIN"],
        keeps: Keeps::Message,
        when_refused: WhenRefused::GivesUp,
        note: "Sends RSET after a refusal, and nobody gets the message; with `sendpartial` the others do. Both are tested.",
        send: jakarta_mail,
        denied: |sent| sent.code == 3,
    },
    Client {
        name: "lettre",
        version: lettre_version,
        mechanisms: &["PLAIN", "LOGIN"],
        keeps: Keeps::Message,
        when_refused: WhenRefused::AlwaysGivesUp,
        note: "Adds a CRLF to the message, so the test gives it a message without the last one. Stops at the first RCPT that is refused; nobody gets the message.",
        send: lettre,
        denied: |sent| sent.code == 5 && sent.said.contains("5.7.8"),
    },
];

pub(crate) fn client(name: &str) -> &'static Client {
    CLIENTS.iter().find(|client| client.name == name).unwrap()
}

fn swaks(post: &Post<'_>) -> Sent {
    let message = post.file("letter", &without_last_crlf(post.letter.message()));
    let mut command = Command::new("swaks");
    command.args([
        "--server",
        "localhost",
        "--port",
        &post.port_number(),
        "--timeout",
        "60",
        "--silent",
        "3",
    ]);
    if post.is_implicit() {
        command.args(["--tls-on-connect", "--pipeline"]);
    } else {
        command.arg("--tls");
    }
    command.args(["--tls-verify", "--tls-ca-path", &post.ca()]);
    command.args(["--auth", post.mechanism, "--auth-user", "alice", "--auth-password", post.password]);
    command.args(["--from", SENDER, "--to", &post.letter.recipients.join(","), "--data"]);
    command.arg(format!("@{}", message.display()));
    run_within(&mut command, b"", PATIENCE).into()
}

fn msmtp(post: &Post<'_>) -> Sent {
    let mut command = Command::new("msmtp");
    command.args(["--host=localhost", &format!("--port={}", post.port_number()), "--tls=on"]);
    command.arg(format!("--tls-starttls={}", if post.is_implicit() { "off" } else { "on" }));
    command.args([
        &format!("--tls-trust-file={}", post.ca()),
        &format!("--auth={}", post.mechanism),
        "--user=alice",
    ]);
    command.arg(format!("--passwordeval=echo {}", post.password));
    command.arg(format!("--from={SENDER}")).args(&post.letter.recipients);
    run_within(&mut command, &lf(&post.letter.message()), PATIENCE).into()
}

fn curl(post: &Post<'_>) -> Sent {
    let message = post.file("letter", &post.letter.message());
    let mut command = Command::new("curl");
    command.args([
        "--silent",
        "--show-error",
        "--verbose",
        "--max-time",
        "100",
        "--ssl-reqd",
        "--cacert",
        &post.ca(),
    ]);
    command.args(["--user", &format!("alice:{}", post.password)]);
    command.args(["--login-options", &format!("AUTH={}", post.mechanism), "--mail-from", SENDER]);
    for recipient in &post.letter.recipients {
        command.args(["--mail-rcpt", recipient]);
    }
    if post.goes_on {
        command.arg("--mail-rcpt-allowfails");
    }
    let scheme = if post.is_implicit() { "smtps" } else { "smtp" };
    command.arg("--upload-file").arg(message);
    command.arg(format!("{scheme}://127.0.0.1:{}/client.example", post.port_number()));
    run_within(&mut command, b"", PATIENCE).into()
}

fn smtplib(post: &Post<'_>) -> Sent {
    let (mechanism, response) = post.mechanism.split_once(' ').unwrap_or((post.mechanism, "initial"));
    let mut command = Command::new("python3");
    command.arg(script("post.py")).args([post.port_number(), format!("{:?}", post.port), post.ca()]);
    let options = if post.letter.kind == Kind::EightBit { "BODY=8BITMIME" } else { "" };
    command.args([post.password, mechanism, response, SENDER, options]).args(&post.letter.recipients);
    run_within(&mut command, &post.letter.message(), PATIENCE).into()
}

fn git_send_email(post: &Post<'_>) -> Sent {
    let message = post.file("letter.patch", &lf(&post.letter.message()));
    // The one whose send-email Debian's package brings.
    let mut command = Command::new("/usr/bin/git");
    command
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", post.gatepost.folder());
    command.current_dir(post.gatepost.folder()).args(["send-email", "--smtp-server=localhost"]);
    command.arg(format!("--smtp-server-port={}", post.port_number()));
    command.arg(format!("--smtp-encryption={}", if post.is_implicit() { "ssl" } else { "tls" }));
    command.args([
        &format!("--smtp-ssl-cert-path={}", post.ca()),
        "--smtp-domain=client.example",
        "--smtp-user=alice",
    ]);
    command.args([format!("--smtp-pass={}", post.password), format!("--smtp-auth={}", post.mechanism)]);
    command.args([
        &format!("--from=Alice <{SENDER}>"),
        "--suppress-cc=all",
        "--confirm=never",
        "--no-validate",
    ]);
    command.args(["--no-format-patch", "--transfer-encoding=8bit", "--no-xmailer"]);
    command.args(post.letter.recipients.iter().map(|recipient| format!("--to={recipient}"))).arg(message);
    run_within(&mut command, b"", PATIENCE).into()
}

fn mutt(post: &Post<'_>) -> Sent {
    let scheme = if post.is_implicit() { "smtps" } else { "smtp" };
    let settings = post.file(
        "muttrc",
        format!(
            "set smtp_url='{scheme}://alice@localhost:{}' smtp_pass='{}' smtp_authenticators='{}'\n\
             set ssl_force_tls=yes ssl_starttls=yes ssl_ca_certificates_file='{ca}' certificate_file='{ca}'\n\
             set from='{SENDER}' realname=Alice use_from=yes use_envelope_from=yes envelope_from_address='{SENDER}' hostname=client.example\n\
             set charset=utf-8 send_charset=us-ascii:utf-8 allow_8bit=yes use_8bitmime=yes text_flowed=no copy=no record='' tmpdir='{}'\n",
            post.port_number(),
            post.password,
            post.mechanism,
            post.gatepost.folder().display(),
            ca = post.ca(),
        )
        .as_bytes(),
    );
    let mut command = Command::new("mutt");
    command.env("HOME", post.gatepost.folder()).env("LC_ALL", "C.UTF-8").args(["-n", "-F"]).arg(settings);
    command.args(["-s", &post.letter.subject, "--"]).args(&post.letter.recipients);
    run_within(&mut command, &lf(&post.letter.body), PATIENCE).into()
}

fn s_nail(post: &Post<'_>) -> Sent {
    let mut command = Command::new("s-nail");
    command.env("HOME", post.gatepost.folder()).env("LC_ALL", "C.UTF-8").args(["-:/", "-v"]);
    let scheme = if post.is_implicit() { "submissions" } else { "submission" };
    let password = post.password.replace(' ', "%20");
    for setting in [
        "v15-compat",
        "ttycharset=utf-8",
        "sendcharsets=utf-8",
        "mime-encoding=8b",
        "smtp-use-starttls",
        "tls-verify=strict",
        "tls-ca-no-defaults",
        "smtp-hostname=mta.example",
        &format!("mta={scheme}://alice:{password}@localhost:{}", post.port_number()),
        &format!("smtp-auth={}", post.mechanism),
        &format!("tls-ca-file={}", post.ca()),
        &format!("from={SENDER}"),
    ] {
        command.args(["-S", setting]);
    }
    command.args(["-s", &post.letter.subject]).args(&post.letter.recipients);
    run_within(&mut command, &lf(&post.letter.body), PATIENCE).into()
}

fn nodemailer(post: &Post<'_>) -> Sent {
    let mut command = Command::new("node");
    command.env("NODE_PATH", unpacked("nodemailer/usr/share/nodejs")).arg(script("post.js"));
    command.args([
        &post.port_number(),
        &format!("{:?}", post.port),
        &post.ca(),
        post.password,
        post.mechanism,
        SENDER,
    ]);
    command.args(&post.letter.recipients);
    run_within(&mut command, &post.letter.message(), PATIENCE).into()
}

fn jakarta_mail(post: &Post<'_>) -> Sent {
    let jars = unpacked("jakarta/usr/share/java");
    let jars = ["jakarta-mail.jar", "jakarta-activation.jar"]
        .map(|jar| jars.join(jar).display().to_string())
        .join(":");
    // Compiled once for all the runs of a test process.
    static CLASSES: OnceLock<tempfile::TempDir> = OnceLock::new();
    let classes = CLASSES.get_or_init(|| {
        let folder = tempfile::Builder::new().prefix("gatepost-java-").tempdir().unwrap();
        let mut command = Command::new("javac");
        command.args(["-cp", &jars, "-d"]).arg(folder.path()).arg(script("Post.java"));
        run_within(&mut command, b"", PATIENCE).expect(0);
        folder
    });
    let mut command = Command::new("java");
    command.args(["-XX:TieredStopAtLevel=1", "-cp", &format!("{}:{jars}", classes.path().display()), "Post"]);
    command.args([
        &post.port_number(),
        &format!("{:?}", post.port),
        &post.ca(),
        post.password,
        post.mechanism,
    ]);
    command.args([if post.goes_on { "true" } else { "false" }, SENDER]).args(&post.letter.recipients);
    let mut sent: Sent = run_within(&mut command, &post.letter.message(), PATIENCE).into();
    // Those that it could reach were reached: for a client that was told to go on that is a success.
    if post.goes_on && sent.code == 4 {
        sent.code = 0;
    }
    sent
}

fn lettre(post: &Post<'_>) -> Sent {
    use lettre::address::Envelope;
    use lettre::transport::smtp::authentication::{Credentials, Mechanism};
    use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
    use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};
    let authority = Certificate::from_pem(&std::fs::read(post.gatepost.ca()).unwrap()).unwrap();
    let tls = TlsParameters::builder("localhost".to_owned())
        .certificate_store(CertificateStore::None)
        .add_root_certificate(authority)
        .build()
        .unwrap();
    let mechanism = if post.mechanism == "LOGIN" { Mechanism::Login } else { Mechanism::Plain };
    let builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous("localhost")
        .port(post.port.address(post.gatepost).port())
        .tls(if post.is_implicit() { Tls::Wrapper(tls) } else { Tls::Required(tls) })
        .credentials(Credentials::new("alice".to_owned(), post.password.to_owned()))
        .authentication(vec![mechanism])
        .timeout(Some(PATIENCE));
    let recipients = post.letter.recipients.iter().map(|recipient| recipient.parse().unwrap()).collect();
    let envelope = Envelope::new(Some(SENDER.parse().unwrap()), recipients).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        match builder.build().send_raw(&envelope, &without_last_crlf(post.letter.message())).await {
            Ok(response) => Sent { code: 0, said: format!("{response:?}") },
            Err(error) => {
                let code = if error.is_permanent() { 5 } else { 4 };
                Sent { code, said: format!("{error:?}") }
            }
        }
    })
}

/// For clients that put a CRLF behind what they are given, whether it ends with one or not.
fn without_last_crlf(mut message: Vec<u8>) -> Vec<u8> {
    message.truncate(message.len() - 2);
    message
}

fn lettre_version() -> String {
    let lock = include_str!("../../../Cargo.lock");
    let (_, rest) = lock.split_once("name = \"lettre\"\nversion = \"").unwrap();
    rest.split('"').next().unwrap().to_owned()
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/blackbox/interop").join(name)
}

/// What tests/install unpacked.
fn unpacked(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/mta").join(path)
}

/// The first word with a number and a dot that the program says about itself.
pub(crate) fn version_of(command: &[&str]) -> String {
    let Sent { said, .. } = run(Command::new(command[0]).args(&command[1..]), b"").into();
    let is_version = |word: &&str| {
        word.contains('.') && word.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit())
    };
    let word = said.split_whitespace().find(is_version).unwrap_or_else(|| panic!("no version in {said}"));
    word.trim_start_matches('v').trim_end_matches([',', ';', '.']).to_owned()
}

/// The version, without Debian's part, of a package that tests/install unpacked.
pub(crate) fn version_of_package(package: &str) -> String {
    let debs = unpacked("debs");
    let name =
        std::fs::read_dir(&debs).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let name = name.filter_map(|name| Some(name.strip_prefix(package)?.strip_prefix('_')?.to_owned())).next();
    let name = name.unwrap_or_else(|| panic!("no {package} in {}: run tests/install", debs.display()));
    // `1%3a2.3.19.1+dfsg1-2_amd64.deb`: the epoch in front, Debian's revision behind.
    let version = name.split('_').next().unwrap();
    let version = version.split_once("%3a").map_or(version, |(_, version)| version);
    version.split(['-', '+', '~']).next().unwrap().to_owned()
}

/// The right password.
pub(crate) const RIGHT: &str = PASSWORD;
