//! The real binary: a configuration in a folder of its own, `serve` on free ports of the loopback, its commands and its log.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::program::{self, Finished};
use super::smtp::Smtp;
use super::{PATIENCE, tls, wait_for};

/// Every test account's password.
pub(crate) const PASSWORD: &str = "correct horse battery";
/// How long the end of a log is waited for when `serve` has ended.
const LOG_PATIENCE: Duration = Duration::from_secs(3);

/// A Gatepost that is yet to be started.
pub(crate) struct Setup {
    table: toml::Table,
    users: String,
    folder: tempfile::TempDir,
    trust: bool,
}

impl Setup {
    /// In front of `upstream`, with the accounts `alice` and `bob`, and no relay hosts.
    pub(crate) fn new(upstream: SocketAddr) -> Self {
        let folder = tempfile::Builder::new().prefix("gatepost-").tempdir().unwrap();
        tls::material().write(folder.path());
        let table = toml::toml! {
            hostname = "gate.example"
            data_dir = "data"
            [[listen]]
            address = "127.0.0.1:0"
            tls = "starttls"
            [[listen]]
            address = "127.0.0.1:0"
            tls = "implicit"
            [tls]
            certificate = "server.pem"
            private_key = "server.key"
            [upstream]
            domains = ["mta.example"]
            [auth]
            users = "users"
            [log]
            format = "json"
        };
        let mut users = String::new();
        for name in ["alice", "bob"] {
            users.push_str(&user_line(name, PASSWORD));
        }
        Self { table, users, folder, trust: false }.set("upstream.address", upstream.to_string())
    }

    /// Sets `table.key`.
    pub(crate) fn set(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        let (tables, key) = match key.rsplit_once('.') {
            Some((tables, key)) => (tables.split('.').collect(), key),
            None => (Vec::new(), key),
        };
        let mut table = &mut self.table;
        for name in tables {
            let entry = table.entry(name).or_insert_with(|| toml::Table::new().into());
            table = entry.as_table_mut().expect("a table");
        }
        table.insert(key.to_owned(), value.into());
        self
    }

    /// `[limit] invalid_recipients`
    pub(crate) fn limit(self, count: i64) -> Self {
        self.set("limit.invalid_recipients", count)
    }

    /// The system of this one trusts the tests' authority.
    pub(crate) fn trust_authority(mut self) -> Self {
        self.trust = true;
        self
    }

    /// [`super::smtp::RELAY_HOST`] may send without AUTH.
    pub(crate) fn relay(self) -> Self {
        self.set("relay.hosts", vec!["127.0.0.2/32"])
    }

    /// The abuse desk.
    pub(crate) fn notify(self, to: &str) -> Self {
        self.set("notify.to", vec![to])
    }

    /// One more line in the users file.
    pub(crate) fn user_line(mut self, line: &str) -> Self {
        self.users.push_str(line);
        self
    }

    /// A file beside the configuration.
    pub(crate) fn file(self, name: &str, content: &str) -> Self {
        std::fs::write(self.folder.path().join(name), content).unwrap();
        self
    }

    /// Writes the files; nothing is started yet.
    pub(crate) fn write(self) -> Gatepost {
        let config = self.folder.path().join("config.toml");
        std::fs::write(&config, self.table.to_string()).unwrap();
        if !self.users.is_empty() {
            std::fs::write(self.folder.path().join("users"), &self.users).unwrap();
        }
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Gatepost {
            folder: self.folder,
            config,
            trust: self.trust,
            serve: None,
            log_reader: None,
            log: Arc::default(),
            binary: env!("CARGO_BIN_EXE_gatepost").into(),
            environment: std::collections::BTreeMap::new(),
            starttls: nowhere,
            implicit: nowhere,
        }
    }

    pub(crate) fn start(self) -> Gatepost {
        let mut gatepost = self.write();
        gatepost.start();
        gatepost
    }
}

/// A line of the users file; few iterations, so that a thousand sessions log in within a second.
pub(crate) fn user_line(name: &str, password: &str) -> String {
    let salt = Sha256::digest(name);
    let salted = salted_password(password.as_bytes(), &salt, 4096);
    let stored = Sha256::digest(hmac(&salted, b"Client Key"));
    let server = hmac(&salted, b"Server Key");
    format!(
        "{name}:{{SCRAM-SHA-256}}4096,{},{},{}\n",
        STANDARD.encode(salt),
        STANDARD.encode(stored),
        STANDARD.encode(server)
    )
}

/// What a client of SCRAM-SHA-256 proves to know the password of a [`user_line`] with: RFC 5802 3.
pub(crate) fn scram_proof(name: &str, password: &str, auth_message: &str) -> String {
    let salted = salted_password(password.as_bytes(), &Sha256::digest(name), 4096);
    let key = hmac(&salted, b"Client Key");
    let signature = hmac(&Sha256::digest(key), auth_message.as_bytes());
    STANDARD.encode(std::array::from_fn::<u8, 32, _>(|at| key[at] ^ signature[at]))
}

fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(text).finalize().into_bytes().into()
}

/// `Hi()` of RFC 5802 2.2.
fn salted_password(password: &[u8], salt: &[u8], iterations: usize) -> [u8; 32] {
    let mut last = hmac(password, &[salt, &[0, 0, 0, 1]].concat());
    let mut sum = last;
    for _ in 1..iterations {
        last = hmac(password, &last);
        sum.iter_mut().zip(last).for_each(|(sum, octet)| *sum ^= octet);
    }
    sum
}

/// Log lines, as they came.
#[derive(Default)]
pub(crate) struct Log(Mutex<Vec<String>>);

/// `serve` and its folder.
pub(crate) struct Gatepost {
    folder: tempfile::TempDir,
    config: PathBuf,
    trust: bool,
    serve: Option<Child>,
    /// Ends with the log of `serve`.
    log_reader: Option<thread::JoinHandle<()>>,
    log: Arc<Log>,
    binary: PathBuf,
    environment: std::collections::BTreeMap<String, String>,
    /// The STARTTLS listener.
    pub(crate) starttls: SocketAddr,
    /// The implicit one.
    pub(crate) implicit: SocketAddr,
}

impl Gatepost {
    /// Starts `serve`, and waits until both listeners are there.
    pub(crate) fn start(&mut self) {
        self.spawn();
        self.started();
    }

    /// The same with these variables in its environment.
    pub(crate) fn start_with(&mut self, environment: &[(&str, &str)]) {
        let mut command = self.command(&["serve"]);
        command.envs(environment.iter().copied());
        self.spawn_as(command);
        self.started();
    }

    /// The same, run by `outer`, which gets the command line behind its own arguments and becomes it.
    pub(crate) fn start_under(&mut self, outer: Command) {
        self.spawn_under(outer);
        self.started();
    }

    /// The same by this command.
    pub(crate) fn start_as(&mut self, command: Command) {
        self.spawn_as(command);
        self.started();
    }

    /// As [`Self::start_under`], and waits for nothing.
    pub(crate) fn spawn_under(&mut self, mut outer: Command) {
        let command = self.command(&["serve"]);
        outer.arg(command.get_program()).args(command.get_args()).current_dir(self.folder.path());
        self.spawn_as(outer);
    }

    fn started(&mut self) {
        let addresses = wait_for(PATIENCE, || {
            let listening = self.listening();
            if listening.len() >= 2 {
                return Some(Some(listening));
            }
            self.serve.as_mut().unwrap().try_wait().unwrap().map(|_| None)
        });
        match addresses {
            Some(Some(listening)) => (self.starttls, self.implicit) = (listening[0], listening[1]),
            Some(None) => panic!("serve ended at once:\n{}", self.log_text()),
            None => panic!("serve does not listen:\n{}", self.log_text()),
        }
    }

    /// Starts `serve` and waits for nothing.
    pub(crate) fn spawn(&mut self) {
        let command = self.command(&["serve"]);
        self.spawn_as(command);
    }

    fn spawn_as(&mut self, mut command: Command) {
        assert!(self.serve.is_none(), "serve runs already");
        self.log = Arc::default();
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::clone(&self.log);
        self.log_reader = Some(thread::spawn(move || {
            for line in stderr.split(b'\n').map_while(Result::ok) {
                log.0.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
            }
        }));
        self.serve = Some(child);
    }

    /// What the log says of the listeners: STARTTLS, then implicit.
    fn listening(&self) -> Vec<SocketAddr> {
        let mut found: Vec<(bool, SocketAddr)> = Vec::new();
        for line in self.log_lines() {
            let text = line.to_string();
            if !text.to_ascii_lowercase().contains("listening") {
                continue;
            }
            let implicit = text.contains("implicit");
            let words = text.split(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'));
            let address =
                words.filter_map(|word| word.trim_matches([':', '.']).parse::<SocketAddr>().ok()).next();
            found.extend(address.map(|address| (implicit, address)));
        }
        found.sort();
        found.into_iter().map(|(_, address)| address).collect()
    }

    /// Changes the configuration file, for the next start.
    pub(crate) fn replace_in_config(&self, old: &str, new: &str) {
        let text = std::fs::read_to_string(&self.config).unwrap();
        assert!(text.contains(old), "{old} is not in {text}");
        std::fs::write(&self.config, text.replace(old, new)).unwrap();
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.serve.as_ref().expect("serve runs").id()
    }

    /// Resident memory of `serve` in KiB: the peak, and now.
    pub(crate) fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let field = |name: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        (field("VmHWM:"), field("VmRSS:"))
    }

    /// An authenticated session of `user`.
    pub(crate) fn login(&self, user: &str) -> Smtp {
        Smtp::login(self.starttls, user, PASSWORD)
    }

    /// A session of the relay host.
    pub(crate) fn relay(&self) -> Smtp {
        Smtp::relay(self.starttls)
    }

    /// The binary with `--config`, not yet run.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.envs(&self.environment);
        command.arg("--config").arg(&self.config).args(arguments).current_dir(self.folder.path());
        if self.trust {
            command.env("SSL_CERT_FILE", self.ca());
        }
        command
    }

    /// Runs a command of the contract.
    pub(crate) fn run(&self, arguments: &[&str]) -> Finished {
        program::run(&mut self.command(arguments), b"")
    }

    /// Runs a command that must succeed, and reads its JSON Lines.
    pub(crate) fn json_lines(&self, arguments: &[&str]) -> Vec<Value> {
        self.run(&[arguments, &["--json"]].concat()).expect(0).json_lines()
    }

    /// The object of `status --json` for `account`.
    pub(crate) fn status(&self, account: &str) -> Option<Value> {
        self.json_lines(&["status"]).into_iter().find(|object| object["account"] == account)
    }

    /// `quarantine list --json`
    pub(crate) fn parked(&self) -> Vec<Value> {
        self.json_lines(&["quarantine", "list"])
    }

    /// Every log line that is JSON.
    pub(crate) fn log_lines(&self) -> Vec<Value> {
        let lines = self.log.0.lock().unwrap();
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    pub(crate) fn log_text(&self) -> String {
        self.log.0.lock().unwrap().join("\n")
    }

    /// Waits for a log line that satisfies `wanted`.
    pub(crate) fn expect_log(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        wait_for(PATIENCE, || self.log_lines().into_iter().find(|line| wanted(line)))
            .unwrap_or_else(|| panic!("no log line that says {what}"))
    }

    /// SIGKILL: as if the machine had lost power, but for the page cache.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.serve.take() {
            child.kill().unwrap();
            child.wait().unwrap();
            self.read_log_to_its_end();
        }
    }

    /// Another binary.
    pub(crate) fn use_binary(&mut self, binary: PathBuf) {
        self.binary = binary;
    }

    /// For what is started from now on.
    pub(crate) fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.insert(name.to_owned(), value.to_owned());
    }

    /// Starts `serve`, and waits until it listens or has ended.
    pub(crate) fn start_if_it_lives(&mut self) {
        self.spawn();
        let listens = wait_for(PATIENCE, || {
            let listening = self.listening();
            (listening.len() >= 2 || self.has_ended()).then_some(listening)
        });
        if let Some([starttls, implicit]) = listens.as_deref() {
            (self.starttls, self.implicit) = (*starttls, *implicit);
        }
    }

    /// Whether `serve` has ended; [`Self::reap`] takes note of that.
    pub(crate) fn has_ended(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('Z'))
    }

    pub(crate) fn signal_kill(&self) {
        let pid = rustix::process::Pid::from_child(self.serve.as_ref().unwrap());
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    /// Waits for the end of a `serve` that was killed.
    pub(crate) fn reap(&mut self) {
        if let Some(mut child) = self.serve.take() {
            child.wait().unwrap();
            self.read_log_to_its_end();
        }
    }

    /// How many descriptors `serve` has open.
    pub(crate) fn descriptors(&self) -> u64 {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count() as u64
    }

    /// How many it may have; those that it may have had.
    pub(crate) fn limit_descriptors(&self, most: u64) -> u64 {
        use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
        let pid = Pid::from_child(self.serve.as_ref().unwrap());
        let maximum = getrlimit(Resource::Nofile).maximum;
        let limit = Rlimit { current: Some(most), maximum };
        prlimit(Some(pid), Resource::Nofile, limit).unwrap().current.unwrap_or(u64::MAX)
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn terminate(&mut self) -> std::process::ExitStatus {
        self.signal_term();
        self.expect_end(PATIENCE)
    }

    pub(crate) fn signal_term(&self) {
        let pid = rustix::process::Pid::from_child(self.serve.as_ref().unwrap());
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Waits until `serve` has ended.
    pub(crate) fn expect_end(&mut self, deadline: Duration) -> std::process::ExitStatus {
        let child = self.serve.as_mut().expect("serve runs");
        let status = wait_for(deadline, || child.try_wait().unwrap()).expect("serve ends");
        self.serve = None;
        self.read_log_to_its_end();
        status
    }

    /// The last lines may still be in the pipe when `serve` has ended. A child of its own may keep the pipe open: it is not waited for
    /// for ever.
    fn read_log_to_its_end(&mut self) {
        if let Some(reader) = self.log_reader.take() {
            let _ = wait_for(LOG_PATIENCE, || reader.is_finished().then_some(()));
        }
    }

    /// Replaces the users file in one step.
    pub(crate) fn write_users(&self, text: &str) {
        let new = self.folder().join("users.new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.folder().join("users")).unwrap();
    }
}

impl Drop for Gatepost {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let config = std::fs::read_to_string(&self.config).unwrap_or_default();
            eprintln!("--- config.toml\n{config}\n--- log\n{}\n", self.log_text());
        }
    }
}
