//! Real clients in front of real upstreams: every kind of mail on both ports, and what arrived compared with what was sent.
//!
//! `docs/interop.md` is made from these tests (`page.rs`): a row stands there only if its test can pass, and the versions are those of
//! the run that wrote it.

mod clients;
mod house;
mod letters;
pub(crate) mod page;
mod upstreams;

use std::process::Command;

use self::clients::{Client, Port, client};
use self::house::House;
use crate::support::gatepost::{PASSWORD, Setup};
use crate::support::mta::Mta;
use crate::support::program::run;
use crate::support::scripted::Scripted;
use crate::support::tls;
use crate::support::{PATIENCE, wait_for};

/// All kinds on both ports in front of Postfix, and a wrong password.
fn in_front_of_postfix(client: &Client) {
    let mta = Mta::postfix();
    let mut house = House::open(Setup::new(mta.address), &mta);
    house.denies(client);
    house.takes_all_kinds(client);
    page::client_passed(client);
}

macro_rules! in_front_of_postfix {
    ($($test:ident $name:literal $needs:literal)*) => { $(
        #[test]
        #[ignore = $needs]
        fn $test() {
            in_front_of_postfix(client($name));
        }
    )* };
}

in_front_of_postfix! {
    swaks_and_postfix "swaks" "needs tests/install: swaks, Postfix"
    msmtp_and_postfix "msmtp" "needs tests/install: msmtp, Postfix"
    curl_and_postfix "curl" "needs tests/install: curl, Postfix"
    smtplib_and_postfix "Python smtplib" "needs tests/install: python3, Postfix"
    git_and_postfix "git send-email" "needs tests/install: git send-email, Postfix"
    mutt_and_postfix "mutt" "needs tests/install: mutt, Postfix"
    s_nail_and_postfix "s-nail" "needs tests/install: s-nail, Postfix"
    nodemailer_and_postfix "nodemailer" "needs tests/install: nodemailer, Postfix"
    jakarta_mail_and_postfix "Jakarta Mail" "needs tests/install: Jakarta Mail, Postfix"
    lettre_and_postfix "lettre" "needs tests/install: Postfix"
}

/// gsasl ends once it is authenticated; it speaks no implicit TLS, so that 465 is reached through a tunnel, which is somebody
/// in between: there is no channel binding then.
#[test]
#[ignore = "needs tests/install: gsasl"]
fn gsasl_scram() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).start();
    for port in Port::BOTH {
        for mechanism in page::gsasl_mechanisms(port) {
            let gsasl = |password: &str| {
                let mut command = Command::new("gsasl");
                command.args(["--smtp", "--quiet", "--mechanism", mechanism]);
                if !mechanism.ends_with("-PLUS") {
                    command.arg("--no-cb");
                }
                command.args(["--authentication-id=alice", &format!("--password={password}")]);
                match port {
                    Port::Submission => {
                        command.arg(format!("--connect=localhost:{}", gatepost.starttls.port()));
                        command.arg(format!("--x509-ca-file={}", gatepost.ca().display()));
                    }
                    Port::Submissions => {
                        let tunnel = tls::tunnel(gatepost.implicit);
                        command.args([&format!("--connect=127.0.0.1:{}", tunnel.port()), "--no-starttls"]);
                    }
                }
                run(&mut command, b"")
            };
            let refused = gsasl("wrong");
            assert!(!refused.status.success(), "{mechanism} on {port:?} took a wrong password: {refused:?}");
            gsasl(PASSWORD).expect(0);
        }
    }
    for (mechanism, times) in [("SCRAM-SHA-256", 2), ("SCRAM-SHA-256-PLUS", 1)] {
        let used = || {
            let lines = gatepost.log_lines();
            lines
                .iter()
                .filter(|line| line["mechanism"] == mechanism && line["account"] == "user:alice")
                .count()
        };
        let enough = wait_for(PATIENCE, || Some(used()).filter(|used| *used >= times));
        assert_eq!(enough, Some(times), "{mechanism} was used: {}", gatepost.log_text());
    }
    page::gsasl_passed();
}
