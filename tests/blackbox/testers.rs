//! Testers that others wrote, pointed at both listeners: what they find must be nothing, or is named here with the reason.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::interop::page::{self, Tester};
use crate::support::gatepost::{Gatepost, Setup};
use crate::support::program::{Finished, run_within};
use crate::support::scripted::Scripted;
use crate::support::smtp::Smtp;

/// The slowest of them opens some thousand connections, one after the other.
const PATIENCE: Duration = Duration::from_secs(900);

/// Nothing is slowed down and nobody is turned away: they are many, and from one address.
fn gatepost(upstream: &Scripted) -> Gatepost {
    Setup::new(upstream.address).set("session.max_connections_per_ip", 10_000).start()
}

fn run(command: &mut Command) -> Finished {
    run_within(command, b"", PATIENCE)
}

/// What tests/install put there.
fn python(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/mta/python/bin").join(name)
}

/// The one finding that is about the authority of these tests and not about the server: it publishes no list of what it revoked.
const EXCUSED: &str = "cert_revocation";

/// testssl.sh: nothing above "low", and it must have looked at everything that was asked for.
#[test]
#[ignore = "needs tests/install: testssl.sh"]
fn testssl_finds_nothing() {
    let upstream = Scripted::start();
    let gatepost = gatepost(&upstream);
    let scan = |name: &str, target: &[&str]| {
        let report = gatepost.folder().join(format!("{name}.json"));
        let mut command = Command::new("testssl");
        command.current_dir(gatepost.folder()).args([
            "--quiet",
            "--warnings",
            "off",
            "--color",
            "0",
            "--nodns",
            "none",
        ]);
        // Protocols, suites, forward secrecy, preferences, server defaults, vulnerabilities; no web, no simulation of browsers.
        command
            .args(["-p", "-s", "-f", "-P", "-S", "-U"])
            .arg("--add-ca")
            .arg(gatepost.ca())
            .arg("--jsonfile")
            .arg(&report);
        let finished = run(command.args(target));
        let text = std::fs::read_to_string(&report).unwrap_or_else(|error| panic!("{error}: {finished:?}"));
        let findings: Vec<Value> =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {finished:?}"));
        let severity = |id: &str| {
            findings.iter().find(|one| one["id"] == id).map(|one| one["severity"].as_str().unwrap())
        };
        for id in [
            "cipher_order",
            "SSLv2",
            "SSLv3",
            "TLS1",
            "TLS1_1",
            "TLS1_2",
            "TLS1_3",
            "heartbleed",
            "CCS",
            "ROBOT",
            "secure_renego",
            "SWEET32",
            "FREAK",
            "LOGJAM",
            "BEAST",
            "CRIME_TLS",
            "POODLE_SSL",
            "DROWN",
            "LUCKY13",
            "RC4",
        ] {
            assert!(matches!(severity(id), Some("OK" | "INFO")), "{name}: {id}: {:?}\n{text}", severity(id));
        }
        for finding in &findings {
            let id = finding["id"].as_str().unwrap();
            let grave = matches!(finding["severity"].as_str(), Some("MEDIUM" | "HIGH" | "CRITICAL"));
            assert!(!grave || id == EXCUSED, "{name}: {finding}");
            assert!(!finding["finding"].as_str().unwrap().contains("interrupted"), "{name}: {finding}");
        }
    };
    std::thread::scope(|scope| {
        let submission = format!("localhost:{}", gatepost.starttls.port());
        let scan = &scan;
        scope.spawn(move || scan("587", &["-t", "smtp", &submission]));
        scan("465", &[&format!("localhost:{}", gatepost.implicit.port())]);
    });
    page::tester_passed(Tester::Testssl);
}

/// SSLyze: TLS 1.2 and 1.3 alone, with forward secrecy and AEAD alone, none of the known holes.
#[test]
#[ignore = "needs tests/install: sslyze"]
fn sslyze_finds_nothing() {
    let upstream = Scripted::start();
    let gatepost = gatepost(&upstream);
    for (address, starttls) in [(gatepost.starttls, true), (gatepost.implicit, false)] {
        let report = gatepost.folder().join("sslyze.json");
        let mut command = Command::new(python("sslyze"));
        for scan in [
            "sslv2",
            "sslv3",
            "tlsv1",
            "tlsv1_1",
            "tlsv1_2",
            "tlsv1_3",
            "compression",
            "early_data",
            "openssl_ccs",
            "fallback",
            "heartbleed",
            "robot",
            "reneg",
            "resum",
            "elliptic_curves",
            "ems",
        ] {
            command.arg(format!("--{scan}"));
        }
        if starttls {
            command.args(["--starttls", "smtp"]);
        }
        command.args(["--mozilla_config", "disable", "--json_out"]).arg(&report).arg(address.to_string());
        let finished = run(&mut command).expect(0);
        let text = std::fs::read_to_string(&report).unwrap();
        let report: Value = serde_json::from_str(&text).unwrap();
        let result = &report["server_scan_results"][0]["scan_result"];
        let of = |scan: &str| {
            assert_eq!(result[scan]["status"], "COMPLETED", "{scan}: {}", finished.stdout);
            &result[scan]["result"]
        };
        let suites = |scan: &str| -> Vec<String> {
            let accepted = of(scan)["accepted_cipher_suites"].as_array().unwrap();
            accepted.iter().map(|suite| suite["cipher_suite"]["name"].as_str().unwrap().to_owned()).collect()
        };
        for old in ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"] {
            assert_eq!(suites(&format!("{old}_cipher_suites")), [""; 0], "{old}");
        }
        let (twelve, thirteen) = (suites("tls_1_2_cipher_suites"), suites("tls_1_3_cipher_suites"));
        assert!(!twelve.is_empty() && !thirteen.is_empty());
        for suite in &twelve {
            let is_good = suite.starts_with("TLS_ECDHE_")
                && (suite.contains("_GCM_") || suite.contains("CHACHA20_POLY1305"));
            assert!(is_good, "{suite}");
        }
        assert_eq!(of("tls_compression")["supports_compression"], false);
        assert_eq!(of("tls_1_3_early_data")["supports_early_data"], false);
        assert_eq!(of("openssl_ccs_injection")["is_vulnerable_to_ccs_injection"], false);
        assert_eq!(of("heartbleed")["is_vulnerable_to_heartbleed"], false);
        assert!(
            of("robot")["robot_result"].as_str().unwrap().starts_with("NOT_VULNERABLE"),
            "{}",
            of("robot")
        );
        assert_eq!(of("session_renegotiation")["is_vulnerable_to_client_renegotiation_dos"], false);
        assert_eq!(of("tls_extended_master_secret")["supports_ems_extension"], true);
        of("elliptic_curves");
        of("session_resumption");
    }
    page::tester_passed(Tester::Sslyze);
}

/// The authors of "Why TLS is better without STARTTLS": a command in cleartext behind STARTTLS is not run within TLS.
#[test]
#[ignore = "needs tests/install: command-injection-tester"]
fn the_command_injection_tester_finds_none() {
    let upstream = Scripted::start();
    let gatepost = gatepost(&upstream);
    let mut command = Command::new(python("python3"));
    command.args(["-W", "ignore"]).arg(python("command-injection-tester")).args([
        "--smtp",
        "--nocolor",
        "--timeout",
        "1",
        "--smtp-port",
    ]);
    command
        .arg(gatepost.starttls.port().to_string())
        .arg("--logdir")
        .arg(gatepost.folder().join("logs"))
        .arg("localhost");
    let finished = run(&mut command).expect(0);
    let said = &finished.stdout;
    assert!(said.contains("Sanity test done") && said.contains("No response in encrypted context"), "{said}");
    assert!(said.contains("Probably no command injection here!"), "{said}");
    for bad in [
        "Command injection here",
        "Possible command injection",
        "Probable command injection",
        "ERROR",
        "WARNING",
    ] {
        assert!(!said.contains(bad), "{said}");
    }
    page::tester_passed(Tester::Injection);
}

/// nmap's scripts for SMTP and TLS: no open relay, no users to enumerate, no known hole, suites of grade A.
#[test]
#[ignore = "needs tests/install: nmap"]
fn nmap_finds_nothing() {
    let upstream = Scripted::start();
    let gatepost = gatepost(&upstream);
    let ports = format!("{},{}", gatepost.starttls.port(), gatepost.implicit.port());
    let mut command = Command::new("nmap");
    command.args(["-Pn", "-n", "-sV", "--version-intensity", "2", "-p", &ports, "--script"]);
    command.arg(
        "ssl-enum-ciphers,ssl-heartbleed,ssl-poodle,ssl-ccs-injection,sslv2,sslv2-drown,smtp-commands,smtp-open-relay,smtp-enum-users,\
         smtp-ntlm-info,smtp-vuln-cve2010-4344,smtp-vuln-cve2011-1720,smtp-vuln-cve2011-1764",
    );
    command.args([
        "--script-args",
        "smtp.domain=mta.example,smtp-open-relay.to=carol@foreign.example",
        "127.0.0.1",
    ]);
    let said = run(&mut command).expect(0).stdout;
    assert_eq!(said.matches("least strength: A").count(), 2, "{said}");
    assert_eq!(said.matches("Server isn't an open relay").count(), 2, "{said}");
    assert_eq!(said.matches("Couldn't perform user enumeration").count(), 2, "{said}");
    for bad in [
        "State: VULNERABLE",
        "LIKELY VULNERABLE",
        "SSLv2 supported",
        "TLSv1.0:",
        "TLSv1.1:",
        "is an open relay",
        "least strength: B",
    ] {
        assert!(!said.contains(bad), "{said}");
    }
    assert_eq!(upstream.lines("RCPT"), [""; 0], "nothing of it reached the upstream");
    // Somebody honest still gets through, from the same address.
    let mut client = Smtp::login(gatepost.starttls, "bob", crate::support::gatepost::PASSWORD);
    client.submit(
        "bob@mta.example",
        &["carol@mta.example"],
        &crate::support::smtp::message("after the scan"),
    );
    page::tester_passed(Tester::Nmap);
}
