//! Real clients, each on both listeners: what they send arrives, and a wrong password is told as one.

use std::net::SocketAddr;
use std::process::Command;

use crate::support::gatepost::{Gatepost, PASSWORD, Setup};
use crate::support::program::{Finished, run};
use crate::support::scripted::{Scripted, Transaction};
use crate::support::smtp::message;
use crate::support::{contains, tls};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Port {
    /// 587: STARTTLS.
    Submission,
    /// 465: implicit TLS.
    Submissions,
}

impl Port {
    const BOTH: [Self; 2] = [Self::Submission, Self::Submissions];

    fn address(self, gatepost: &Gatepost) -> SocketAddr {
        match self {
            Self::Submission => gatepost.starttls,
            Self::Submissions => gatepost.implicit,
        }
    }
}

struct House {
    upstream: Scripted,
    gatepost: Gatepost,
    arrived: usize,
}

impl House {
    fn open() -> Self {
        let upstream = Scripted::start();
        let gatepost = Setup::new(upstream.address).start();
        Self { upstream, gatepost, arrived: 0 }
    }

    fn expect_arrival(&mut self, subject: &str) -> Transaction {
        self.arrived += 1;
        let taken = self.upstream.expect_taken(self.arrived).pop().unwrap();
        assert!(
            contains(&taken.data, format!("Subject: {subject}\r\n").as_bytes()),
            "{}",
            String::from_utf8_lossy(&taken.data)
        );
        assert!(taken.mail.starts_with("MAIL FROM:<alice@mta.example>"), "{}", taken.mail);
        assert!(taken.recipients[0].starts_with("RCPT TO:<bob@mta.example>"), "{:?}", taken.recipients);
        taken
    }
}

fn said(finished: &Finished) -> String {
    format!("{}{}", finished.stdout, finished.stderr)
}

#[test]
#[ignore = "needs tests/install: swaks"]
fn swaks() {
    let mut house = House::open();
    for port in Port::BOTH {
        for mechanism in ["PLAIN", "LOGIN"] {
            let swaks = |password: &str| {
                let mut command = Command::new("swaks");
                command.args([
                    "--server",
                    "localhost",
                    "--port",
                    &port.address(&house.gatepost).port().to_string(),
                ]);
                command.arg(if port == Port::Submission { "--tls" } else { "--tls-on-connect" });
                command.args(["--tls-verify", "--tls-ca-path"]).arg(house.gatepost.ca());
                command.args(["--auth", mechanism, "--auth-user", "alice", "--auth-password", password]);
                command.args([
                    "--from",
                    "alice@mta.example",
                    "--to",
                    "bob@mta.example",
                    "--h-Subject",
                    "from swaks",
                ]);
                run(&mut command, b"")
            };
            // swaks: 28 is "AUTH was tried, and refused".
            swaks("wrong").expect(28);
            swaks(PASSWORD).expect(0);
            house.expect_arrival("from swaks");
        }
    }
}

#[test]
#[ignore = "needs tests/install: msmtp"]
fn msmtp() {
    let mut house = House::open();
    for port in Port::BOTH {
        for mechanism in ["plain", "login", "scram-sha-256"] {
            let msmtp = |password: &str| {
                let mut command = Command::new("msmtp");
                command
                    .args(["--host=localhost", &format!("--port={}", port.address(&house.gatepost).port())]);
                command.args([
                    "--tls=on",
                    &format!("--tls-starttls={}", if port == Port::Submission { "on" } else { "off" }),
                ]);
                command.arg(format!("--tls-trust-file={}", house.gatepost.ca().display()));
                command.args([
                    &format!("--auth={mechanism}"),
                    "--user=alice",
                    &format!("--passwordeval=echo {password}"),
                ]);
                command.args(["--from=alice@mta.example", "bob@mta.example"]);
                run(&mut command, &lf(&message("from msmtp")))
            };
            let refused = msmtp("wrong");
            assert!(
                !refused.status.success() && said(&refused).contains("authentication failed"),
                "{}",
                said(&refused)
            );
            msmtp(PASSWORD).expect(0);
            let arrived = house.expect_arrival("from msmtp");
            assert!(arrived.message().ends_with(&message("from msmtp")), "{mechanism}");
        }
    }
}

#[test]
#[ignore = "needs tests/install: curl"]
fn curl() {
    let mut house = House::open();
    let file = house.gatepost.folder().join("mail");
    std::fs::write(&file, message("from curl")).unwrap();
    for port in Port::BOTH {
        for mechanism in ["PLAIN", "LOGIN"] {
            let curl = |password: &str| {
                let scheme = if port == Port::Submission { "smtp" } else { "smtps" };
                let mut command = Command::new("curl");
                command
                    .args(["--silent", "--show-error", "--max-time", "20", "--ssl-reqd", "--cacert"])
                    .arg(house.gatepost.ca());
                command.args([
                    "--user",
                    &format!("alice:{password}"),
                    "--login-options",
                    &format!("AUTH={mechanism}"),
                ]);
                command
                    .args([
                        "--mail-from",
                        "alice@mta.example",
                        "--mail-rcpt",
                        "bob@mta.example",
                        "--upload-file",
                    ])
                    .arg(&file);
                command.arg(format!(
                    "{scheme}://127.0.0.1:{}/client.example",
                    port.address(&house.gatepost).port()
                ));
                run(&mut command, b"")
            };
            // curl: 67 is "log-in denied".
            curl("wrong").expect(67);
            curl(PASSWORD).expect(0);
            let arrived = house.expect_arrival("from curl");
            assert!(arrived.message().ends_with(&message("from curl")));
        }
    }
}

#[test]
#[ignore = "needs tests/install: python3"]
fn python_smtplib() {
    let mut house = House::open();
    let script = r#"
import smtplib, ssl, sys
port, mode, ca, password, mechanism = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4], sys.argv[5]
trust = ssl.create_default_context(cafile=ca)
if mode == "Submission":
    client = smtplib.SMTP("localhost", port, timeout=20)
    client.starttls(context=trust)
else:
    client = smtplib.SMTP_SSL("localhost", port, timeout=20, context=trust)
client.ehlo()
client.user, client.password = "alice", password
try:
    client.auth(mechanism, getattr(client, "auth_" + mechanism.lower()), initial_response_ok=sys.argv[6] == "initial")
except smtplib.SMTPAuthenticationError as error:
    sys.exit(3 if error.smtp_code == 535 else str(error))
refused = client.sendmail("alice@mta.example", ["bob@mta.example", "nobody-1@mta.example"], sys.stdin.buffer.read())
assert list(refused) == ["nobody-1@mta.example"] and refused["nobody-1@mta.example"][0] == 550, refused
client.quit()
"#;
    for port in Port::BOTH {
        for (mechanism, response) in
            [("PLAIN", "initial"), ("PLAIN", "none"), ("LOGIN", "initial"), ("LOGIN", "none")]
        {
            let python = |password: &str| {
                let mut command = Command::new("python3");
                command.args([
                    "-c",
                    script,
                    &port.address(&house.gatepost).port().to_string(),
                    &format!("{port:?}"),
                ]);
                command.arg(house.gatepost.ca()).args([password, mechanism, response]);
                run(&mut command, &message("from python"))
            };
            python("wrong").expect(3);
            python(PASSWORD).expect(0);
            let arrived = house.expect_arrival("from python");
            assert!(arrived.message().ends_with(&message("from python")));
        }
    }
}

/// gsasl ends once it is authenticated; it speaks no implicit TLS, so that 465 is reached through a tunnel.
#[test]
#[ignore = "needs tests/install: gsasl"]
fn gsasl_scram() {
    let house = House::open();
    for port in Port::BOTH {
        for mechanism in ["SCRAM-SHA-256", "PLAIN", "LOGIN"] {
            let gsasl = |password: &str| {
                let mut command = Command::new("gsasl");
                command.args(["--smtp", "--no-cb", "--quiet", "--mechanism", mechanism]);
                command.args(["--authentication-id=alice", &format!("--password={password}")]);
                match port {
                    Port::Submission => {
                        command.arg(format!("--connect=localhost:{}", house.gatepost.starttls.port()));
                        command.arg(format!("--x509-ca-file={}", house.gatepost.ca().display()));
                    }
                    Port::Submissions => {
                        command.arg(format!(
                            "--connect=127.0.0.1:{}",
                            tls::tunnel(house.gatepost.implicit).port()
                        ));
                        command.arg("--no-starttls");
                    }
                }
                run(&mut command, b"")
            };
            let refused = gsasl("wrong");
            assert!(
                !refused.status.success(),
                "{mechanism} on {port:?} took a wrong password: {}",
                said(&refused)
            );
            gsasl(PASSWORD).expect(0);
        }
    }
    let logged =
        house.gatepost.log_lines().iter().filter(|line| line.to_string().contains("SCRAM-SHA-256")).count();
    assert!(logged >= 2, "SCRAM was used: {}", house.gatepost.log_text());
}

#[test]
#[ignore = "needs tests/install: s-nail"]
fn s_nail() {
    let mut house = House::open();
    for port in Port::BOTH {
        let mut command = Command::new("s-nail");
        command.env("HOME", house.gatepost.folder()).args([
            "-:/",
            "-v",
            "-S",
            "v15-compat",
            "-S",
            "ttycharset=utf-8",
        ]);
        let scheme = if port == Port::Submission { "submission" } else { "submissions" };
        let password = "correct%20horse%20battery";
        command.args([
            "-S",
            &format!("mta={scheme}://alice:{password}@localhost:{}", port.address(&house.gatepost).port()),
        ]);
        command.args([
            "-S",
            "smtp-use-starttls",
            "-S",
            "smtp-auth=plain",
            "-S",
            "tls-verify=strict",
            "-S",
            "smtp-hostname=mta.example",
        ]);
        command.args([
            "-S",
            &format!("tls-ca-file={}", house.gatepost.ca().display()),
            "-S",
            "tls-ca-no-defaults",
        ]);
        command.args(["-S", "from=alice@mta.example", "-s", "from s-nail", "bob@mta.example"]);
        run(&mut command, b"Hello.\n").expect(0);
        house.expect_arrival("from s-nail");
    }
}

fn lf(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(|&octet| octet != b'\r').collect()
}
