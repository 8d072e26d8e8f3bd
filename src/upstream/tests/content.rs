//! Mail data: whole or not at all, and never taken for a message if it was cut.

use super::*;

#[tokio::test]
async fn a_short_message_goes_out_with_its_end_in_one_segment() {
    let script = format!(
        "{}< DATA\n> 354 go\n< Received: by us\n<+ Subject: x\n<+ \n<+ ..dot\n<+ .\n> 250 2.0.0 queued as 1\n",
        one_recipient()
    );
    let scripted = Scripted::start(&[&script]).await;
    let upstream = upstream(scripted.address);
    let mut transaction = ready_for_data(&upstream).await;
    // The age of the connection does not matter.
    sleep(Duration::from_millis(1_100)).await;
    transaction.begin_data().await.unwrap();
    transaction.write_data(&mut b"Received: by us\r\n".to_vec()).await.unwrap();
    transaction.write_data(&mut b"Subject: x\r\n\r\n..dot\r\n".to_vec()).await.unwrap();
    assert_eq!(transaction.finish_data(b".\r\n").await.unwrap().to_string(), "250 2.0.0 queued as 1");
    drop(transaction);
    upstream.close();
    scripted.finish(1).await;
}

#[tokio::test]
async fn a_long_message_arrives_octet_for_octet() {
    let script = format!("{}< DATA\n> 354 go\n", one_recipient());
    let scripted = Scripted::start(&[&script]).await;
    let upstream = Upstream::open(impatient(scripted.address, DEADLINE, Duration::from_secs(1))).unwrap();
    let mut transaction = ready_for_data(&upstream).await;
    transaction.begin_data().await.unwrap();
    let mut sent = String::new();
    for number in 0..3000 {
        let piece = format!("{number} {}\r\n", "x".repeat(number * 7 % 20_000));
        transaction.write_data(&mut piece.as_bytes().to_vec()).await.unwrap();
        sent.push_str(&piece);
    }
    // the script never answers
    assert!(matches!(transaction.finish_data(b".\r\n").await, Err(Fault::Ambiguous(_))));
    drop(transaction);
    upstream.close();
    let heard = scripted.finish(1).await.remove(0);
    let body = &heard[heard.find("DATA\r\n").unwrap() + 6..];
    assert!(body == format!("{sent}.\r\n"), "{} octets of {}", body.len(), sent.len() + 3);
}

#[tokio::test]
async fn data_refused() {
    let script = format!("{}< DATA\n> 554 5.7.1 no\n< RSET\n> 250 ok\n< QUIT", one_recipient());
    let scripted = Scripted::start(&[&script]).await;
    let upstream = upstream(scripted.address);
    let mut transaction = ready_for_data(&upstream).await;
    let refusal = transaction.begin_data().await.unwrap_err();
    assert!(
        matches!(&refusal, Stopped::Refused(reply) if reply.to_string() == "554 5.7.1 no"),
        "{refusal:?}"
    );
    drop(transaction);
    upstream.close();
    scripted.finish(1).await;
    // 2yz does not answer DATA
    let script = format!("{}< DATA\n> 250 2.0.0 fine\n", one_recipient());
    let scripted = Scripted::start(&[&script]).await;
    let upstream = super::upstream(scripted.address);
    let mut transaction = ready_for_data(&upstream).await;
    assert!(matches!(transaction.begin_data().await, Err(Stopped::Fault(Fault::Protocol(_)))));
    drop(transaction);
    upstream.close();
    let heard = scripted.finish(1).await.remove(0);
    assert!(heard.ends_with("DATA\r\n"), "{heard}");
}

/// Writes 64 KiB at a time until something happens.
async fn write_on(transaction: &mut Transaction) -> Stopped {
    let piece = "x".repeat(64 * 1024 - 2) + "\r\n";
    for _ in 0..2000 {
        if let Err(stop) =
            timeout(DEADLINE, transaction.write_data(&mut piece.as_bytes().to_vec())).await.unwrap()
        {
            return stop;
        }
    }
    panic!("128 MB were taken");
}

#[tokio::test]
async fn a_refusal_in_mid_data_is_told() {
    for end in ["close", ""] {
        let line = "x".repeat(64 * 1024 - 2);
        let script = format!("{}< DATA\n> 354 go\n< {line}\n> 552 5.3.4 too big\n{end}", one_recipient());
        let scripted = Scripted::start(&[&script]).await;
        let upstream = upstream(scripted.address);
        let mut transaction = ready_for_data(&upstream).await;
        transaction.begin_data().await.unwrap();
        let stop = write_on(&mut transaction).await;
        assert!(
            matches!(&stop, Stopped::Refused(reply) if reply.to_string() == "552 5.3.4 too big"),
            "{stop:?}"
        );
        // it is over
        assert!(matches!(transaction.finish_data(b".\r\n").await, Err(Fault::Unavailable(_))));
        drop(transaction);
        upstream.close();
        let heard = scripted.finish(1).await.remove(0);
        assert!(!heard.contains("\r\n.\r\n") && !heard.ends_with("QUIT\r\n"));
    }
}

#[tokio::test]
async fn a_promise_before_the_end_is_not_believed() {
    let script = format!("{}< DATA\n> 354 go\n> 250 2.0.0 queued\n", one_recipient());
    let scripted = Scripted::start(&[&script]).await;
    let upstream = upstream(scripted.address);
    let mut transaction = ready_for_data(&upstream).await;
    transaction.begin_data().await.unwrap();
    let outcome = match transaction.write_data(&mut b"x\r\n".to_vec()).await {
        Ok(()) => transaction.finish_data(b".\r\n").await.map_err(Stopped::from),
        Err(stop) => Err(stop),
    };
    assert!(matches!(outcome, Err(Stopped::Fault(Fault::Protocol(_)))), "{outcome:?}");
    drop(transaction);
    upstream.close();
    let heard = scripted.finish(1).await.remove(0);
    assert!(!heard.ends_with(".\r\n"), "{heard}");
}

#[tokio::test]
async fn an_end_without_reply_is_ambiguous() {
    for end in ["close", "> what?\n", "> 354 go on\n", "> 250-never\nclose", ""] {
        let script = format!("{}< DATA\n> 354 go\n< x\n<+ .\n{end}", one_recipient());
        let scripted = Scripted::start(&[&script]).await;
        let upstream =
            Upstream::open(impatient(scripted.address, DEADLINE, Duration::from_millis(300))).unwrap();
        let mut transaction = ready_for_data(&upstream).await;
        transaction.begin_data().await.unwrap();
        transaction.write_data(&mut b"x\r\n".to_vec()).await.unwrap();
        let outcome = transaction.finish_data(b".\r\n").await;
        assert!(matches!(outcome, Err(Fault::Ambiguous(_))), "{end}: {outcome:?}");
        drop(transaction);
        upstream.close();
        scripted.finish(1).await;
    }
}

#[tokio::test]
async fn a_refusal_at_the_end_is_a_reply_and_ends_the_connection() {
    for reply in ["421 4.3.2 shutting down", "452 4.3.1 full", "554 5.7.1 spam"] {
        let script = format!("{}< DATA\n> 354 go\n< .\n> {reply}\n< QUIT", one_recipient());
        let scripted = Scripted::start(&[&script]).await;
        let upstream = upstream(scripted.address);
        let mut transaction = ready_for_data(&upstream).await;
        transaction.begin_data().await.unwrap();
        assert_eq!(transaction.finish_data(b".\r\n").await.unwrap().to_string(), reply);
        drop(transaction);
        upstream.close();
        scripted.finish(1).await;
    }
}

#[tokio::test]
async fn what_is_aborted_is_never_a_message() {
    for how in ["abort", "drop", "drop before anything", "abandon"] {
        let script = format!("{}< DATA\n> 354 go\n", one_recipient());
        let scripted = Scripted::start(&[&script]).await;
        let upstream = upstream(scripted.address);
        let mut transaction = ready_for_data(&upstream).await;
        transaction.begin_data().await.unwrap();
        if how != "drop before anything" {
            let big = "y".repeat(100_000) + "\r\n";
            transaction.write_data(&mut big.as_bytes().to_vec()).await.unwrap();
            transaction.write_data(&mut b"last line\r\n".to_vec()).await.unwrap();
        }
        match how {
            "abort" => {
                transaction.abort_data();
                assert!(transaction.finish_data(b".\r\n").await.is_err());
            }
            "abandon" => transaction.abandon(),
            _ => drop(transaction),
        }
        let heard = scripted.finish(1).await.remove(0);
        let body = &heard[heard.find("DATA\r\n").unwrap() + 6..];
        assert!(body.is_empty() || body.trim_end().bytes().all(|octet| octet == b'y'), "{how}");
    }
}

#[tokio::test]
async fn a_cancelled_end_cuts_the_connection() {
    let script = format!("{}< DATA\n> 354 go\n< .\n", one_recipient());
    let scripted = Scripted::start(&[&script]).await;
    let upstream = upstream(scripted.address);
    let mut transaction = ready_for_data(&upstream).await;
    transaction.begin_data().await.unwrap();
    assert!(timeout(Duration::from_millis(50), transaction.finish_data(b".\r\n")).await.is_err());
    assert!(transaction.finish_data(b".\r\n").await.is_err());
    drop(transaction);
    upstream.close();
    scripted.finish(1).await;
}

#[tokio::test]
async fn an_upstream_that_stops_reading_is_given_up() {
    // A listener whose connections nobody reads from.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut chunk = [0; 4096];
        stream.write_all(b"220 mail\r\n").await.unwrap();
        for reply in ["250 mail\r\n", "250 2.1.0 ok\r\n", "250 2.1.5 ok\r\n", "354 go\r\n"] {
            assert!(stream.read(&mut chunk).await.unwrap() > 0);
            stream.write_all(reply.as_bytes()).await.unwrap();
        }
        stream
    });
    let upstream = Upstream::open(impatient(address, Duration::from_millis(300), DEADLINE)).unwrap();
    let mut transaction = ready_for_data(&upstream).await;
    transaction.begin_data().await.unwrap();
    let stream = server.await.unwrap();
    let stop = write_on(&mut transaction).await;
    assert!(matches!(stop, Stopped::Fault(Fault::Unavailable(_))), "{stop:?}");
    drop(stream);
}
