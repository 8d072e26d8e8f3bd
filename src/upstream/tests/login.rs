//! Our login to the upstream, and our certificate.

use std::path::Path;

use super::*;

/// Script: up to AUTH.
fn before(mechanisms: &str) -> String {
    format!("> 220 mail\n< EHLO gatepost.test\n> 250-mail\n> 250-XCLIENT ADDR LOGIN\n> 250 {mechanisms}\n")
}

fn settings_with(address: SocketAddr, username: &str, password_file: PathBuf) -> Settings {
    let credentials = Credentials { username: username.to_owned(), password_file };
    Settings { credentials: Some(credentials), ..settings(address) }
}

/// Script: EHLO after the login.
const AGAIN: &str = "< EHLO gatepost.test\n> 250-mail\n> 250 BINARYMIME\n";

const PLAIN: &str = "AUTH PLAIN AGdhdGUAc2VjcmV0"; // \0gate\0secret

#[tokio::test]
async fn plain_or_login_and_never_xclient() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "secret\n").unwrap();
    let login = "< AUTH LOGIN\n> 334 VXNlcm5hbWU6\n< Z2F0ZQ==\n> 334 UGFzc3dvcmQ6\n< c2VjcmV0\n";
    for (mechanisms, exchange, told) in [
        ("AUTH LOGIN PLAIN", format!("< {PLAIN}\n> 235 2.7.0 ok\n"), "250 2.1.0 ok"),
        ("AUTH=plain", format!("< {PLAIN}\n> 235 2.7.0 ok\n"), "250 2.1.0 ok"),
        ("AUTH LOGIN", format!("{login}> 235 2.7.0 ok\n"), "250 2.1.0 ok"),
        ("AUTH LOGIN CRAM-MD5", format!("{login}> 535 5.7.8 no\n"), "Unavailable"),
        ("AUTH LOGIN", format!("{login}> 334 UGFzc3dvcmQ6\n"), "Unavailable"),
        ("AUTH PLAIN", format!("< {PLAIN}\n> 454 4.7.0 later\n"), "Unavailable"),
        ("AUTH CRAM-MD5", String::new(), "Unavailable"),
        ("DSN", String::new(), "Unavailable"),
    ] {
        let mail = match told.starts_with("250") {
            true => format!("{AGAIN}< {MAIL}\n> 250 2.1.0 ok\n"),
            false => String::new(),
        };
        let scripted = Scripted::start(&[&format!("{}{exchange}{mail}", before(mechanisms))]).await;
        let upstream = Upstream::open(settings_with(scripted.address, "gate", file.clone())).unwrap();
        let mut transaction = upstream.transaction(identity("alice"));
        assert_eq!(ask_one(&mut transaction, MAIL).await, told, "{mechanisms}");
        drop(transaction);
        upstream.close();
        let heard = scripted.finish(1).await;
        assert!(!heard[0].contains("XCLIENT"), "{heard:?}");
    }
}

/// RFC 4954 4: an initial response that makes the line too long is sent on its own.
#[tokio::test]
async fn a_long_password_goes_by_itself() {
    use base64::Engine as _;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    let response = |length: usize| {
        let message = format!("\0gate\0{}", "x".repeat(length));
        base64::engine::general_purpose::STANDARD.encode(message)
    };
    // `AUTH PLAIN `, at most 499 octets, CRLF; base64 comes in fours.
    for (length, exchange) in [
        (366, format!("< AUTH PLAIN {}\n> 235 ok\n", response(366))),
        (367, format!("< AUTH PLAIN\n> 334 \n< {}\n> 235 ok\n", response(367))),
    ] {
        std::fs::write(&file, "x".repeat(length)).unwrap();
        let scripted = Scripted::start(&[&format!("{}{exchange}{AGAIN}< QUIT", before("AUTH PLAIN"))]).await;
        let upstream = Upstream::open(settings_with(scripted.address, "gate", file.clone())).unwrap();
        upstream.learn(None).await.unwrap();
        // The offer after the login counts.
        assert!(upstream.offers().as_ref().unwrap().binary_mime);
        scripted.finish(1).await;
    }
}

#[tokio::test]
async fn a_password_that_is_refused_is_read_anew() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "old\n").unwrap();
    let refused = format!("{}< AUTH PLAIN AGdhdGUAb2xk\n> 535 5.7.8 no\n", before("AUTH PLAIN"));
    let changed = format!("{refused}< {PLAIN}\n> 235 2.7.0 ok\n{AGAIN}< QUIT");
    let later = format!("{}< {PLAIN}\n> 235 2.7.0 ok\n{AGAIN}< QUIT", before("AUTH PLAIN"));
    let scripted = Scripted::start(&[&refused, &changed, &later]).await;
    let upstream = Upstream::open(settings_with(scripted.address, "gate", file.clone())).unwrap();
    // unchanged
    let why = upstream.learn(None).await.unwrap_err().to_string();
    assert!(why.contains("535 5.7.8 no") && !why.contains("old"), "{why}");
    std::fs::write(&file, "secret\n").unwrap();
    upstream.learn(None).await.unwrap();
    upstream.learn(None).await.unwrap();
    scripted.finish(3).await;
}

#[tokio::test]
async fn a_file_that_is_missing_stops_the_start() {
    let address = "127.0.0.1:25".parse().unwrap();
    let error = Upstream::open(settings_with(address, "gate", "/none/password".into())).err().unwrap();
    assert!(error.to_string().contains("/none/password"), "{error}");
}

#[tokio::test]
async fn a_certificate_of_ours_where_the_upstream_asks_for_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (name, host) in
        [("mta", "mail.example.org"), ("gate", "gate.example.org"), ("other", "gate.example.org")]
    {
        let pair = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
        std::fs::write(path(&format!("{name}.crt")), pair.cert.pem()).unwrap();
        std::fs::write(path(&format!("{name}.key")), pair.signing_key.serialize_pem()).unwrap();
    }
    let server = asking_for_certificates(&path("mta.crt"), &path("mta.key"), &path("gate.crt"));
    let pair = |name: &str| KeyPair {
        certificate: path(&format!("{name}.crt")),
        private_key: path(&format!("{name}.key")),
    };
    for (identity, welcome) in [(Some(pair("gate")), true), (Some(pair("other")), false), (None, false)] {
        let script = format!("tls\n{READY}{}", if welcome { "< QUIT" } else { "" });
        let scripted = Scripted::start_with_tls(&[&script], Some(Arc::clone(&server))).await;
        let settings = Settings {
            protection: Protection::Implicit,
            ca: Some(path("mta.crt")),
            identity: identity.clone(),
            ..settings(scripted.address)
        };
        let learned = Upstream::open(settings).unwrap().learn(None).await;
        assert_eq!(learned.is_ok(), welcome, "{identity:?}: {learned:?}");
        drop(timeout(DEADLINE, scripted.playing()).await.unwrap());
    }
}

fn asking_for_certificates(certificate: &Path, key: &Path, trusted: &Path) -> Arc<rustls::ServerConfig> {
    use crate::net::pem;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut anchors = rustls::RootCertStore::empty();
    anchors.add(pem::certificates(trusted).unwrap().remove(0)).unwrap();
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(anchors), Arc::clone(&provider));
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(pem::certificates(certificate).unwrap(), pem::private_key(key).unwrap());
    Arc::new(config.unwrap())
}
