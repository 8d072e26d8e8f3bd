//! Binary content in chunks: each is answered before the next, and a message that was cut is never taken for a whole
//! one.

use super::*;

const MAIL: &str = "MAIL FROM:<s@a.example> BODY=BINARYMIME";

/// Script: up to an accepted recipient of a binary message.
fn binary_recipient() -> String {
    format!(
        "> 220 mail ESMTP\n< EHLO gatepost.test\n> 250-mail\n> 250-CHUNKING\n> 250-BINARYMIME\n> 250 PIPELINING\n\
         < {MAIL}\n<+ {}\n> 250 2.1.0 ok\n> 250 2.1.5 ok\n",
        rcpt("r1")
    )
}

async fn ready_for_chunks(upstream: &Upstream) -> Transaction {
    let mut transaction = upstream.transaction(identity("alice"));
    let answers = ask(&mut transaction, &[MAIL.to_owned(), rcpt("r1")]).await;
    assert_eq!(answers, ["250 2.1.0 ok", "250 2.1.5 ok"]);
    transaction
}

#[tokio::test]
async fn chunk_by_chunk_and_the_connection_stays() {
    let script = binary_recipient()
        + "< BDAT 8\n<+ .one..\n> 250 2.0.0 8 octets\n< BDAT 0 LAST\n> 250 2.0.0 queued\n< QUIT";
    let scripted = Scripted::start(&[&script]).await;
    let upstream = upstream(scripted.address);
    let mut transaction = ready_for_chunks(&upstream).await;
    transaction.begin_chunks().await.unwrap();
    assert_eq!(transaction.write_chunk(b".one..\r\n").await, Ok(()));
    assert_eq!(transaction.finish_chunks(b"").await.unwrap().to_string(), "250 2.0.0 queued");
    drop(transaction);
    upstream.close();
    scripted.finish(1).await;
}

#[tokio::test]
async fn a_connection_that_died_meanwhile_is_replaced_before_the_first_chunk() {
    let dying = binary_recipient() + "> 421 4.3.2 shutting down\n";
    let script = binary_recipient() + "< BDAT 2 LAST\n<+\n> 250 2.0.0 queued";
    let scripted = Scripted::start(&[&dying, &script]).await;
    let upstream = upstream(scripted.address);
    let mut transaction = ready_for_chunks(&upstream).await;
    transaction.begin_chunks().await.unwrap();
    assert_eq!(transaction.finish_chunks(b"\r\n").await.unwrap().to_string(), "250 2.0.0 queued");
    drop(transaction);
    upstream.close();
    scripted.finish(2).await;
}

#[tokio::test]
async fn refusals_and_losses() {
    for (answer, last, expected) in [
        ("> 552 5.3.4 too big\n", false, "refused 552 5.3.4 too big"),
        ("> 354 go\n", false, "Protocol"),
        ("> 421 4.3.2 closing\n", false, "refused 421 4.3.2 closing"),
        ("close", false, "Unavailable"),
        ("> 554 5.6.0 no\n", true, "refused 554 5.6.0 no"),
        ("> 354 go\n", true, "Ambiguous"),
        ("close", true, "Ambiguous"),
        ("> what\n", true, "Ambiguous"),
    ] {
        let script =
            format!("{}< BDAT 2{}\n<+\n{answer}", binary_recipient(), if last { " LAST" } else { "" });
        let scripted = Scripted::start(&[&script]).await;
        let upstream = upstream(scripted.address);
        let mut transaction = ready_for_chunks(&upstream).await;
        transaction.begin_chunks().await.unwrap();
        let outcome = match last {
            false => transaction.write_chunk(b"\r\n").await.map(|()| None),
            true => transaction.finish_chunks(b"\r\n").await.map(Some).map_err(Stopped::from),
        };
        let told = match outcome {
            Ok(Some(reply)) | Err(Stopped::Refused(reply)) => format!("refused {reply}"),
            Ok(None) => "taken".to_owned(),
            Err(Stopped::Fault(fault)) => told(&Answer::None(fault)),
        };
        assert_eq!(told, expected, "{answer}");
        // Nothing more goes out.
        assert!(
            transaction.write_chunk(b"x").await.is_err() && transaction.finish_chunks(b"").await.is_err()
        );
        drop(transaction);
        upstream.close();
        assert!(!scripted.finish(1).await[0].contains("BDAT 0"));
    }
}

/// The upstream says that all is well, and hangs up before it has read the chunk.
#[tokio::test]
async fn a_chunk_that_did_not_go_out_whole_was_not_taken() {
    let chunk = vec![b'x'; 20_000_000];
    for (last, expected) in [(false, "Protocol"), (true, "Ambiguous")] {
        let marker = if last { " LAST" } else { "" };
        let script =
            format!("{}< BDAT {}{marker}\n> 250 2.0.0 queued\nclose", binary_recipient(), chunk.len());
        let scripted = Scripted::start(&[&script]).await;
        let upstream = upstream(scripted.address);
        let mut transaction = ready_for_chunks(&upstream).await;
        transaction.begin_chunks().await.unwrap();
        let outcome = match last {
            false => transaction.write_chunk(&chunk).await,
            true => transaction.finish_chunks(&chunk).await.map(|_| ()).map_err(Stopped::from),
        };
        let Err(Stopped::Fault(fault)) = outcome else { panic!("{outcome:?}") };
        assert_eq!(told(&Answer::None(fault)), expected);
        drop(transaction);
        upstream.close();
        scripted.finish(1).await;
    }
}

#[tokio::test]
async fn not_where_the_upstream_lacks_it() {
    let scripted = Scripted::start(&[READY]).await;
    let upstream = upstream(scripted.address);
    let mut transaction = upstream.transaction(identity("alice"));
    assert_eq!(ask_one(&mut transaction, MAIL).await, "MissingExtension");
    assert!(matches!(transaction.begin_chunks().await, Err(Stopped::Fault(Fault::Protocol(_)))));
    drop(transaction);
    upstream.close();
    scripted.finish(1).await;
}

/// RFC 9422 4.1: no more transactions on a connection than the upstream allows.
#[tokio::test]
async fn mailmax_is_kept_to() {
    let ready = "> 220 mail ESMTP\n< EHLO gatepost.test\n> 250-mail\n> 250 LIMITS MAILMAX=1\n";
    let script = format!("{ready}< {}\n> 550 no\n< QUIT", super::MAIL);
    let scripted = Scripted::start(&[&script, &script]).await;
    let upstream = upstream(scripted.address);
    for _ in 0..2 {
        let mut transaction = upstream.transaction(identity("alice"));
        assert_eq!(ask_one(&mut transaction, super::MAIL).await, "550 no");
    }
    upstream.close();
    scripted.finish(2).await;
}
