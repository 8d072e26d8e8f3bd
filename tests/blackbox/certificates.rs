//! Certificates: of the server, by name and exchanged while it runs; of clients, in place of a password.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use crate::support::gatepost::{Gatepost, PASSWORD, Setup};
use crate::support::scripted::Scripted;
use crate::support::smtp::{Smtp, message};
use crate::support::{PATIENCE, tls, wait_for};

/// An authority of this test's own.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, "An authority");
        let key = KeyPair::generate().unwrap();
        let pem = parameters.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(parameters, key), pem }
    }

    /// Certificate and key.
    fn signed(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut parameters = CertificateParams::new(names).unwrap();
        change(&mut parameters);
        let key = KeyPair::generate().unwrap();
        (parameters.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// A client's side that trusts this authority and that of the tests, and shows `identity`.
    fn client(&self, identity: Option<&(String, String)>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for pem in [&self.pem, &tls::material().authority] {
            roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match identity {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => config
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
                )
                .unwrap(),
        })
    }
}

/// Both in one step each, as those do who renew certificates.
fn put(folder: &Path, name: &str, (certificate, key): &(String, String)) {
    for (end, content) in [("key", key), ("crt", certificate)] {
        std::fs::write(folder.join("new"), content).unwrap();
        std::fs::rename(folder.join("new"), folder.join(format!("{name}.{end}"))).unwrap();
    }
}

/// Whose certificate a client sees that asks for `name`, as DER.
fn shown(server: SocketAddr, client: &Arc<ClientConfig>, name: &str) -> Vec<u8> {
    let mut session = Smtp::connect(server);
    session.ehlo();
    session.expect("STARTTLS", 220);
    session.begin_tls_with(Arc::clone(client), ServerName::try_from(name.to_owned()).unwrap());
    session.certificate()
}

fn der(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

fn with_further(upstream: &Scripted) -> Setup {
    let mut further = toml::Table::new();
    further.insert("certificate".to_owned(), "other.crt".into());
    further.insert("private_key".to_owned(), "other.key".into());
    Setup::new(upstream.address).set("certificate", vec![toml::Value::Table(further)])
}

/// Issue 6, TLS: several certificates by SNI, reloaded when the files change; a broken new one keeps the old in force, with
/// an alarm.
#[test]
fn by_name_and_exchanged_while_it_runs() {
    let authority = Authority::new();
    let client = authority.client(None);
    let upstream = Scripted::start();
    let mut gatepost = with_further(&upstream).notify("abuse@mta.example").write();
    let first = authority.signed(&["mail.other.example"], |_| ());
    put(gatepost.folder(), "other", &first);
    gatepost.start();
    let is = |name: &str, expected: &[u8]| shown(gatepost.starttls, &client, name) == expected;
    let own = der(&tls::material().certificate);
    assert!(is("gate.example", &own) && is("localhost", &own));
    assert!(is("mail.other.example", &der(&first.0)));
    let open = gatepost.login("alice");
    // Renewed: nobody has to be told.
    let second = authority.signed(&["mail.other.example"], |_| ());
    put(gatepost.folder(), "other", &second);
    wait_for(PATIENCE, || is("mail.other.example", &der(&second.0)).then_some(())).expect("the new one");
    gatepost.expect_log("that it was read", |line| {
        line["message"] == "certificate read anew"
            && line["certificate"].as_str().unwrap().ends_with("other.crt")
    });
    // Broken: the alarm, and nothing else.
    put(gatepost.folder(), "other", &(first.0, second.1.clone()));
    gatepost.expect_log("that it is refused", |line| {
        line["level"] == "ERROR" && line["message"].as_str().unwrap().contains("new certificate is refused")
    });
    assert!(is("mail.other.example", &der(&second.0)) && is("gate.example", &own));
    let notice = upstream.expect_taken(1).remove(0);
    let text = String::from_utf8_lossy(&notice.data).into_owned();
    assert!(
        text.contains("Subject: A new certificate cannot be used") && text.contains("other.key"),
        "{text}"
    );
    // Mended.
    let third = authority.signed(&["mail.other.example"], |_| ());
    put(gatepost.folder(), "other", &third);
    wait_for(PATIENCE, || is("mail.other.example", &der(&third.0)).then_some(())).expect("the third one");
    open.quit();
}

/// Issue 6, TLS: expiry is warned of at 14 days, by `check` and in the log.
#[test]
fn what_expires_is_told() {
    let authority = Authority::new();
    let upstream = Scripted::start();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    for (days, word) in [(13, Some("warning")), (15, None), (-1, Some("error"))] {
        let mut gatepost = with_further(&upstream).write();
        let end = rcgen::date_time_ymd(1970, 1, 1) + now;
        let span = std::time::Duration::from_secs(86_400 * i64::unsigned_abs(days) + 60);
        let end = if days < 0 { end - span } else { end + span };
        put(gatepost.folder(), "other", &authority.signed(&["a.example"], |one| one.not_after = end));
        let check = gatepost.run(&["check", "--json"]);
        let findings = check.json_lines();
        let expiry = |finding: &&serde_json::Value| {
            finding["about"] == "certificate" && finding["finding"].as_str().unwrap().contains(" expire")
        };
        let found = findings.iter().find(expiry);
        assert_eq!(found.map(|finding| finding["severity"].as_str().unwrap()), word, "{days}: {findings:?}");
        gatepost.start();
        let expires = |line: &serde_json::Value| {
            line["not_after"].is_string() && line["certificate"].as_str().unwrap().ends_with("other.crt")
        };
        if word.is_some() {
            gatepost.expect_log("that it expires", expires);
        } else {
            assert!(!gatepost.log_lines().iter().any(expires));
        }
    }
}

/// And by mail, a minute behind the start.
#[test]
#[ignore = "takes 60 s; tests/run runs it"]
fn what_expires_is_mailed() {
    let authority = Authority::new();
    let upstream = Scripted::start();
    let mut gatepost = with_further(&upstream).notify("abuse@mta.example").write();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let end = rcgen::date_time_ymd(1970, 1, 1) + now + std::time::Duration::from_secs(86_400);
    put(gatepost.folder(), "other", &authority.signed(&["a.example"], |one| one.not_after = end));
    gatepost.start();
    wait_for(std::time::Duration::from_secs(90), || (!upstream.taken().is_empty()).then_some(()))
        .expect("a mail");
    let text = String::from_utf8_lossy(&upstream.taken()[0].data).into_owned();
    assert!(text.contains("Subject: A certificate expires soon") && text.contains("other.crt"), "{text}");
    assert_eq!(upstream.taken().len(), 1, "of that one alone");
}

fn session(gatepost: &Gatepost, client: Arc<ClientConfig>) -> Smtp {
    let mut session = Smtp::connect(gatepost.starttls);
    assert!(!session.ehlo().text().contains("EXTERNAL"), "in the clear");
    session.expect("STARTTLS", 220);
    session.begin_tls_with(client, ServerName::try_from("localhost").unwrap());
    session
}

/// Issue 6, TLS: optional client certificates, SASL EXTERNAL.
#[test]
fn a_client_certificate_in_place_of_a_password() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let upstream = Scripted::start();
    let mut gatepost = Setup::new(upstream.address).set("tls.client_ca", "clients.pem").write();
    std::fs::write(gatepost.folder().join("clients.pem"), &authority.pem).unwrap();
    gatepost.start();
    let mailbox = |name: &'static str| {
        move |one: &mut CertificateParams| {
            one.subject_alt_names.push(SanType::Rfc822Name(name.try_into().unwrap()));
        }
    };
    let common = |name: &'static str| {
        move |one: &mut CertificateParams| one.distinguished_name.push(DnType::CommonName, name)
    };
    for identity in [authority.signed(&[], mailbox("alice")), authority.signed(&[], common("alice"))] {
        for tls13 in [true, false] {
            let mut config = authority.client(Some(&identity));
            if !tls13 {
                let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
                let mut roots = RootCertStore::empty();
                roots
                    .add(CertificateDer::from_pem_slice(tls::material().authority.as_bytes()).unwrap())
                    .unwrap();
                config = Arc::new(
                    ClientConfig::builder_with_provider(provider)
                        .with_protocol_versions(&[&rustls::version::TLS12])
                        .unwrap()
                        .with_root_certificates(roots)
                        .with_client_auth_cert(
                            vec![CertificateDer::from_pem_slice(identity.0.as_bytes()).unwrap()],
                            PrivateKeyDer::from_pem_slice(identity.1.as_bytes()).unwrap(),
                        )
                        .unwrap(),
                );
            }
            // The second time the session is resumed.
            for _ in 0..2 {
                let mut client = session(&gatepost, Arc::clone(&config));
                let hello = client.ehlo();
                assert!(hello.text().contains("AUTH EXTERNAL PLAIN LOGIN SCRAM-SHA-256"), "{}", hello.text());
                client.expect("AUTH EXTERNAL =", 235);
                client.submit("alice@mta.example", &["carl@mta.example"], &message("by certificate"));
                client.quit();
            }
        }
    }
    gatepost
        .expect_log("who it was", |line| line["mechanism"] == "EXTERNAL" && line["account"] == "user:alice");
    let alice = authority.signed(&[], mailbox("alice"));
    let mut client = session(&gatepost, authority.client(Some(&alice)));
    client.ehlo();
    // base64 of `bob`
    assert!(client.ask("AUTH EXTERNAL Ym9i").text().starts_with("535 5.7.8 "));
    client.auth_plain("bob", PASSWORD, 235);
    // Nobody's certificate, or none: passwords alone.
    let nobody = authority.signed(&[], mailbox("mallory"));
    for identity in [Some(&nobody), None] {
        let mut client = session(&gatepost, authority.client(identity));
        assert!(!client.ehlo().text().contains("EXTERNAL"));
        client.expect("AUTH EXTERNAL =", 504);
        client.auth_plain("alice", PASSWORD, 235);
    }
    // A certificate of somebody else's authority ends the handshake.
    let forged = stranger.signed(&[], mailbox("alice"));
    let mut client = Smtp::connect(gatepost.starttls);
    client.ehlo();
    client.expect("STARTTLS", 220);
    let name = ServerName::try_from("localhost").unwrap();
    let refused = client.try_begin_tls_with(authority.client(Some(&forged)), name).is_err()
        || client.try_send(b"EHLO x\r\n").is_err()
        || !matches!(client.try_hear(), Ok(crate::support::smtp::Heard::Reply(_)));
    assert!(refused);
}
