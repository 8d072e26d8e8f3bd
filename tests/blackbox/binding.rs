//! SCRAM-SHA-256-PLUS: a password that is worth nothing to somebody who stands between the client and Gatepost (RFC 5802 6,
//! RFC 9266), said by a client of the tests' own. A real one is in `interop`.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

use crate::support::gatepost::{Gatepost, PASSWORD, Setup, scram_proof};
use crate::support::scripted::Scripted;
use crate::support::smtp::{Reply, Smtp};
use crate::support::tls;

const PLUS: &str = "SCRAM-SHA-256-PLUS";
const BARE: &str = "SCRAM-SHA-256";
const OFFERED: &str = "AUTH PLAIN LOGIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS";
const OFFERED_BARE: &str = "AUTH PLAIN LOGIN SCRAM-SHA-256";

/// A session on either listener, and whether SCRAM-SHA-256-PLUS is offered in it.
fn session(gatepost: &Gatepost, starttls: bool, config: &Arc<ClientConfig>) -> (Smtp, bool) {
    let name = ServerName::try_from("localhost").unwrap();
    let mut client;
    if starttls {
        client = Smtp::connect(gatepost.starttls);
        assert!(!client.ehlo().offers("AUTH"), "in the clear");
        client.expect("STARTTLS", 220);
        client.begin_tls_with(Arc::clone(config), name);
    } else {
        client = Smtp::open(std::net::Ipv4Addr::LOCALHOST.into(), gatepost.implicit);
        client.begin_tls_with(Arc::clone(config), name);
        client.expect_reply(220);
    }
    let hello = client.ehlo();
    let line = hello.lines.iter().find(|line| line.starts_with("AUTH ")).expect("AUTH");
    assert!([OFFERED, OFFERED_BARE].contains(&line.as_str()), "{line}");
    let offered = line == OFFERED;
    (client, offered)
}

/// A whole exchange as alice; the last reply.
fn scram(client: &mut Smtp, mechanism: &str, flag: &str, binding: &[u8]) -> Reply {
    let first = "n=alice,r=rOprNGfwEbeRWgbNEkqO";
    let reply = client.ask(&format!("AUTH {mechanism} {}", STANDARD.encode(format!("{flag},,{first}"))));
    if reply.code != 334 {
        return reply;
    }
    let challenge = String::from_utf8(STANDARD.decode(&reply.lines[0]).unwrap()).unwrap();
    let bound = STANDARD.encode([format!("{flag},,").as_bytes(), binding].concat());
    let nonce = challenge.split(',').next().unwrap();
    let last = format!("c={bound},{nonce}");
    let proof = scram_proof("alice", PASSWORD, &format!("{first},{challenge},{last}"));
    let reply = client.ask(&STANDARD.encode(format!("{last},p={proof}")));
    // The server's signature; RFC 4954 has no place for it in the 235.
    if reply.code == 334 { client.ask("") } else { reply }
}

fn of_version(version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(tls::material().authority.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Arc::new(
        ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth(),
    )
}

/// Issue 6, TLS: channel binding for SCRAM-SHA-256-PLUS (tls-exporter), within STARTTLS and implicit TLS.
#[test]
fn a_login_is_bound_to_its_tls_session() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).start();
    let config = of_version(&rustls::version::TLS13);
    for starttls in [true, false] {
        // The second session is a resumed one, with a binding of its own all the same.
        let mut others: Option<Vec<u8>> = None;
        for _ in 0..2 {
            let (mut client, offered) = session(&gatepost, starttls, &config);
            assert!(offered);
            let own = client.channel_binding();
            assert!(client.is_resumed() || others.is_none());
            let theirs = others.replace(own.clone()).unwrap_or_else(|| vec![0; 32]);
            assert_ne!(own, theirs);
            for (mechanism, flag, binding, expected) in [
                // Who stands between has another TLS session with each side.
                (PLUS, "p=tls-exporter", theirs.as_slice(), "535 5.7.8 "),
                (PLUS, "p=tls-exporter", &[], "535 5.7.8 "),
                // Or takes the offer out of the EHLO reply.
                (BARE, "y", &[], "535 5.7.8 "),
                // No channel binding at all is none of -PLUS, and some other kind is not ours.
                (PLUS, "n", &[], "501 5.5.2 "),
                (PLUS, "p=tls-unique", &own, "535 5.7.8 "),
                (PLUS, "p=tls-exporter", &own, "235 2.7.0 "),
            ] {
                let reply = scram(&mut client, mechanism, flag, binding);
                assert!(reply.text().starts_with(expected), "{mechanism} {flag}: {}", reply.text());
            }
            client.submit("alice@mta.example", &["carl@mta.example"], b"Subject: bound\r\n\r\nHello.\r\n");
            client.quit();
            // A client that can do without it may.
            let (mut client, _) = session(&gatepost, starttls, &config);
            assert_eq!(scram(&mut client, BARE, "n", &[]).code, 235);
        }
    }
    gatepost.expect_log("how", |line| line["mechanism"] == PLUS && line["account"] == "user:alice");
    gatepost.expect_log("the downgrade", |line| {
        line["message"] == "authentication failed"
            && line["why"].as_str().unwrap().contains("kept from the client")
    });
}

/// Where there is no binding, or it is switched off, nothing of it is offered, and `y` tells the truth.
#[test]
fn without_a_binding_there_is_no_plus() {
    let upstream = Scripted::start();
    for (version, on) in [(&rustls::version::TLS12, true), (&rustls::version::TLS13, false)] {
        let gatepost = Setup::new(upstream.address).set("auth.channel_binding", on).start();
        for starttls in [true, false] {
            let (mut client, offered) = session(&gatepost, starttls, &of_version(version));
            assert!(!offered);
            let own = client.channel_binding();
            let reply = scram(&mut client, PLUS, "p=tls-exporter", &own);
            assert!(reply.text().starts_with("504 5.5.4 "), "{}", reply.text());
            assert_eq!(scram(&mut client, BARE, "y", &[]).code, 235);
        }
    }
}
