//! Addresses, secrets and signatures, and what is sent to a minimal receiver.

use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::id::OutboxId;

#[test]
fn addresses() {
    for (text, host, port, path) in [
        ("https://example.org/hooks?a=b", "example.org", 443, "/hooks?a=b"),
        ("https://Example.ORG:8443", "example.org", 8443, "/"),
        ("https://[2001:db8::1]/x", "2001:db8::1", 443, "/x"),
        ("http://127.0.0.1:8080/x", "127.0.0.1", 8080, "/x"),
        ("http://[::1]/", "::1", 80, "/"),
        ("http://localhost:1/", "localhost", 1, "/"),
    ] {
        let target = Target::parse(text).unwrap();
        assert_eq!((target.host.as_str(), target.port, target.path.as_str()), (host, port, path), "{text}");
    }
    assert_eq!(
        Target::parse("https://Example.ORG:8443/a?b").unwrap().to_string(),
        "https://Example.ORG:8443/a?b"
    );
    for (text, part) in [
        ("http://example.org/", "https://, since"),
        ("http://192.0.2.1/", "https://, since"),
        ("ftp://example.org/", "such as https://"),
        ("example.org", "such as https://"),
        ("/hooks", "such as https://"),
        ("https://", "such as https://"),
        ("https://example.org:0/", "such as https://"),
        ("https://example.org:/", "such as https://"),
        ("https://exa mple.org/", "such as https://"),
        ("https://a:b@example.org/", "without a name or a password"),
        ("https://example.org/#x", "without a #"),
    ] {
        let why = Target::parse(text).unwrap_err();
        assert!(why.contains(part), "{text}: {why}");
    }
}

fn secrets(content: &str) -> Result<Secrets, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, content).unwrap();
    Secrets::read(&path).map_err(|error| error.to_string())
}

/// The examples of the specification and of its reference implementations.
#[test]
fn signatures() {
    for (secret, id, seconds, body, expected) in [
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
        (
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            1_649_367_553,
            r#"{"email":"test@example.com","username":"test_user"}"#,
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
        ),
    ] {
        assert_eq!(secrets(secret).unwrap().sign(id, seconds, body.as_bytes()), expected);
    }
    let two = secrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n\nwhsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD\n")
        .unwrap();
    let signed = two.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
    assert!(signed.starts_with("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE= v1,"), "{signed}");
}

#[test]
fn files_with_secrets() {
    for (content, part) in [
        ("", "secret: no secret in it"),
        ("\n\n", "secret: no secret in it"),
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n", "secret:1: a secret is whsec_ and base64"),
        ("whsec_AAAA\nwhsec_*\n", "secret:2: a secret is whsec_ and base64"),
        ("whsec_\n", "secret:1: a secret is"),
        (&"whsec_AAAA\n".repeat(6), "at most 5 secrets"),
    ] {
        let Err(why) = secrets(content) else { panic!("{content}") };
        assert!(why.contains(part), "{why}");
    }
    assert!(secrets(" whsec_c2hvcnQ= \r\n").unwrap().are_weak());
    assert!(!secrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap().are_weak());
    assert!(
        Secrets::read(Path::new("/nowhere/secret"))
            .err()
            .unwrap()
            .to_string()
            .contains("/nowhere/secret: No such")
    );
}

#[test]
fn a_secret_of_our_own() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("webhook-secret");
    assert!(Secrets::make_if_missing(&path).unwrap());
    let made = std::fs::read_to_string(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!Secrets::read(&path).unwrap().are_weak(), "{made}");
    assert!(!Secrets::make_if_missing(&path).unwrap(), "it stays");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), made);
    let why = Secrets::make_if_missing(&folder.path().join("none/secret")).unwrap_err();
    assert!(why.to_string().contains("none"), "{why}");
}

/// Answers one request and returns it.
async fn receive(listener: &TcpListener, answer: &str) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"}") {
        assert!(stream.read_buf(&mut request).await.unwrap() > 0);
    }
    stream.write_all(answer.as_bytes()).await.unwrap();
    String::from_utf8(request).unwrap()
}

/// A receiver that answered 200 to an empty body would have taken the event off.
#[test]
fn what_has_no_form_in_json_is_no_event() {
    let data = std::collections::BTreeMap::from([(["not", "text"], 1)]);
    assert!(event("account.blocked", "user:anna", Timestamp::default(), &data).is_err());
}

#[tokio::test]
async fn what_is_sent_and_which_answers_take_it_off() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
    let url = format!("http://{}/hooks?x=1", listener.local_addr().unwrap());
    let hook = Hook { target: Target::parse(&url).unwrap(), secret_file: file.clone(), own_secret: false };
    let messenger = Messenger::new(Some(hook));
    let now = Timestamp::from_millis(1_795_536_328_123);
    let id = OutboxId::new(now);
    let body = event("account.blocked", "user:anna", now, &["x"]).unwrap().message;
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nthank", Ok("200 OK")),
        ("HTTP/1.1 204 No Content\r\n\r\n", Ok("204 No Content")),
        ("HTTP/1.0 202 Accepted\r\n\r\n", Ok("202 Accepted")),
        (
            "HTTP/1.1 307 Temporary Redirect\r\nlocation: /\r\ncontent-length: 0\r\n\r\n",
            Err("307 Temporary Redirect"),
        ),
        ("HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n", Err("410 Gone")),
        ("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n", Err("500 Internal Server Error")),
        ("SSH-2.0-x\r\n", Err("it did not answer")),
        ("", Err("it did not answer")),
    ] {
        let (request, outcome) = tokio::join!(receive(&listener, answer), messenger.post(id, &body, now));
        match (&outcome, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(why), Err(part)) => assert!(why.contains(part), "{answer}: {why}"),
            _ => panic!("{answer}: {outcome:?}"),
        }
        let (head, sent) = request.split_once("\r\n\r\n").unwrap();
        assert_eq!(sent, r#"{"type":"account.blocked","timestamp":"2026-11-24T16:05:28.123Z","data":["x"]}"#);
        let signature =
            Secrets::read(&file).unwrap().sign(&format!("msg_{id}"), 1_795_536_328, sent.as_bytes());
        for line in [
            "POST /hooks?x=1 HTTP/1.1".to_owned(),
            format!("host: {}", listener.local_addr().unwrap()),
            "content-type: application/json".to_owned(),
            format!("webhook-id: msg_{id}"),
            "webhook-timestamp: 1795536328".to_owned(),
            format!("webhook-signature: {signature}"),
        ] {
            assert!(head.lines().any(|found| found == line), "{line}\n{head}");
        }
    }
    drop(listener);
    assert!(messenger.post(id, &body, now).await.unwrap_err().contains("it cannot be reached"));
    std::fs::remove_file(&file).unwrap();
    assert!(messenger.post(id, &body, now).await.unwrap_err().contains("secret: No such file"));
    assert!(Messenger::new(None).post(id, &body, now).await.unwrap_err().contains("not set"));
}
