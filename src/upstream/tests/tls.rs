//! STARTTLS and implicit TLS: complete, or not at all.

use super::*;
use crate::net::tls::server_config;

const BEFORE: &str = "> 220 mail\n< EHLO gatepost.test\n> 250-mail\n> 250 STARTTLS\n< STARTTLS\n";

async fn run(script: &str, protection: Protection, name: &str) -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("a.crt"), folder.path().join("a.key"));
    let pair = rcgen::generate_simple_self_signed(["mail.example.org".to_owned()]).unwrap();
    std::fs::write(&certificate, pair.cert.pem()).unwrap();
    std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    let server = server_config(&certificate, &key).unwrap();
    let scripted = Scripted::start_with_tls(&[script], Some(server)).await;
    let endpoints = vec![Endpoint { tls_name: name.to_owned(), ..endpoint(scripted.address) }];
    let settings =
        Settings { endpoints, protection, ca: Some(certificate.clone()), ..settings(scripted.address) };
    let upstream = Upstream::open(settings).unwrap();
    let mut transaction = upstream.transaction(identity("alice"));
    let told = ask_one(&mut transaction, MAIL).await;
    drop(transaction);
    upstream.close();
    let heard = match timeout(DEADLINE, scripted.playing()).await {
        Ok(heard) => heard,
        Err(_) => panic!("{script}"),
    };
    (told, heard)
}

#[tokio::test]
async fn starttls_and_implicit() {
    let starttls = format!("{BEFORE}> 220 go\ntls\n{}< {MAIL}\n> 250 2.1.0 ok\n", &READY[17..]);
    let implicit = format!("tls\n{READY}< {MAIL}\n> 250 2.1.0 ok\n");
    let (told, heard) = run(&starttls, Protection::StartTls, "mail.example.org").await;
    assert_eq!(told, "250 2.1.0 ok", "{heard}");
    let (told, heard) = run(&implicit, Protection::Implicit, "mail.example.org").await;
    assert_eq!(told, "250 2.1.0 ok", "{heard}");
    // the certificate is for another name
    let (told, _) = run(&implicit, Protection::Implicit, "mail.example.net").await;
    assert_eq!(told, "Unavailable");
}

/// What `openssl req -x509` makes: the first thing that anyone with a certificate of his own runs into. It is trusted if the
/// operator's file has that very certificate, and only for its names and its time.
#[tokio::test]
async fn an_authority_is_a_server_if_the_operator_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let make = |name: &str, last_year: i32| {
        let mut parameters = rcgen::CertificateParams::new(["mail.example.org".to_owned()]).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(last_year, 1, 1);
        let signing_key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(path(name), parameters.self_signed(&signing_key).unwrap().pem()).unwrap();
        std::fs::write(path("key"), signing_key.serialize_pem()).unwrap();
    };
    make("other", 2999);
    for (last_year, name, ca, expected) in [
        (2999, "mail.example.org", "own", "250 2.1.0 ok"),
        (2999, "mail.example.net", "own", "not valid for name"),
        (2999, "mail.example.org", "other", "CA:FALSE"),
        (2021, "mail.example.org", "own", "expired"),
    ] {
        make("own", last_year);
        let server = server_config(&path("own"), &path("key")).unwrap();
        let script = format!("tls\n{READY}< {MAIL}\n> 250 2.1.0 ok\n");
        let scripted = Scripted::start_with_tls(&[&script], Some(server)).await;
        let endpoints = vec![Endpoint { tls_name: name.to_owned(), ..endpoint(scripted.address) }];
        let settings = Settings {
            endpoints,
            protection: Protection::Implicit,
            ca: Some(path(ca)),
            ..settings(scripted.address)
        };
        let mut transaction = Upstream::open(settings).unwrap().transaction(identity("alice"));
        transaction.ask(question(MAIL));
        let told = match transaction.answer().await {
            Answer::Replied(reply) => reply.to_string(),
            Answer::None(fault) => fault.to_string(),
        };
        assert!(told.contains(expected), "{last_year} {name} {ca}: {told}");
    }
}

#[tokio::test]
async fn octets_behind_the_reply_to_starttls_end_it() {
    let script = format!("{BEFORE}> 220 go\n> 250-mail\n> 250 PIPELINING\n");
    let (told, heard) = run(&script, Protection::StartTls, "mail.example.org").await;
    assert_eq!(told, "Protocol");
    assert!(heard.ends_with("STARTTLS\r\n"), "{heard}");
}

#[tokio::test]
async fn never_without_tls_where_it_is_wanted() {
    for script in [
        // not offered
        READY.to_owned(),
        // refused
        format!("{BEFORE}> 454 4.7.0 no TLS today\n"),
        // EHLO unknown
        "> 220 mail\n< EHLO gatepost.test\n> 502 no\n< HELO gatepost.test\n> 250 mail\n".to_owned(),
    ] {
        let (told, heard) = run(&script, Protection::StartTls, "mail.example.org").await;
        assert_eq!(told, "Unavailable");
        assert!(!heard.contains("MAIL"), "{heard}");
    }
}
