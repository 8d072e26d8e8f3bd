//! MAIL and RCPT: what goes out together, what counts as an answer, and what does not.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::*;

#[tokio::test]
async fn a_batch_goes_out_in_one_segment() {
    let script = format!(
        "{READY}< {MAIL}\n<+ {}\n<+ {}\n> 250 2.1.0 ok\n> 250 2.1.5 ok\n> 550-5.1.1 no\n> 550 5.1.1 such user\n< RSET\n> 250 ok\n< QUIT",
        rcpt("r1"),
        rcpt("r2")
    );
    let scripted = Scripted::start(&[&script]).await;
    let upstream = upstream(scripted.address);
    let mut transaction = upstream.transaction(identity("alice"));
    let answers = ask(&mut transaction, &[MAIL.to_owned(), rcpt("r1"), rcpt("r2")]).await;
    assert_eq!(answers[..2], ["250 2.1.0 ok", "250 2.1.5 ok"]);
    assert!(answers[2].starts_with("550 5.1.1 no"), "{answers:?}");
    assert!(transaction.extensions().unwrap().pipelining);
    transaction.abandon();
    upstream.close();
    assert!(upstream.offers().as_ref().unwrap().eight_bit_mime);
    scripted.finish(1).await;
}

#[tokio::test]
async fn without_pipelining_one_at_a_time() {
    let (r1, r2) = (rcpt("r1"), rcpt("r2"));
    let script =
        format!("{READY_PLAIN}< {MAIL}\n> 250 2.1.0 ok\n< {r1}\n> 250 2.1.5 ok\n< {r2}\n> 250 2.1.5 ok\n");
    let scripted = Scripted::start(&[&script]).await;
    let upstream = upstream(scripted.address);
    let mut transaction = upstream.transaction(identity("alice"));
    transaction.ask(question(MAIL));
    transaction.ask(question(&r1));
    transaction.ask(question(&r2));
    assert_eq!(answer(&mut transaction).await, "250 2.1.0 ok");
    assert_eq!(transaction.outstanding(), 2);
    assert_eq!(answer(&mut transaction).await, "250 2.1.5 ok");
    assert_eq!(answer(&mut transaction).await, "250 2.1.5 ok");
    // nothing outstanding: a mistake of the caller, not a wait
    assert_eq!(answer(&mut transaction).await, "Protocol");
    drop(transaction);
    upstream.close();
    let heard = scripted.finish(1).await;
    assert!(heard[0].ends_with("RSET\r\n") || heard[0].ends_with("RSET\r\nQUIT\r\n"), "{heard:?}");
}

#[tokio::test]
async fn helo_where_ehlo_is_unknown() {
    let script = "> 220 mail\n< EHLO gatepost.test\n> 502 5.5.1 what\n< HELO gatepost.test\n> 250 mail\n< MAIL FROM:<s@a.example>\n> 250 2.1.0 ok\n";
    let scripted = Scripted::start(&[script]).await;
    let upstream = upstream(scripted.address);
    let mut transaction = upstream.transaction(identity("alice"));
    assert_eq!(ask_one(&mut transaction, MAIL).await, "250 2.1.0 ok");
    drop(transaction);
    upstream.close();
    scripted.finish(1).await;
}

#[tokio::test]
async fn what_refuses_us_is_told_in_its_own_words_and_never_as_an_answer() {
    let table: &[(&str, &str)] = &[
        // greeting
        ("> 554 5.7.1 go away\n", "554 5.7.1 go away"),
        ("> 421 4.3.2 later\n", "421 4.3.2 later"),
        // EHLO and HELO
        (
            "> 220 mail\n< EHLO gatepost.test\n> 550 5.7.1 bad name\n< HELO gatepost.test\n> 550 5.7.1 still\n",
            "550 5.7.1 bad name",
        ),
        ("> 220 mail\n< EHLO gatepost.test\n> 450 4.7.1 slow\n", "450 4.7.1 slow"),
        // XCLIENT
        (
            "> 220 mail\n< EHLO gatepost.test\n> 250-mail\n> 250 XCLIENT ADDR\n< XCLIENT ADDR=192.0.2.7\n> 550 5.7.0 insufficient authorization\n< QUIT",
            "550 5.7.0 insufficient authorization",
        ),
        // what it thinks of the client's address
        (
            "> 220 mail\n< EHLO gatepost.test\n> 250-mail\n> 250 XCLIENT ADDR\n< XCLIENT ADDR=192.0.2.7\n> 554 5.7.1 listed\n< QUIT",
            "554 5.7.1 listed",
        ),
    ];
    for (script, words) in table {
        let scripted = Scripted::start(&[script]).await;
        let upstream = upstream(scripted.address);
        let mut transaction = upstream.transaction(identity("alice"));
        transaction.ask(question(MAIL));
        transaction.ask(question(&rcpt("r1")));
        for _ in 0..2 {
            let Answer::None(Fault::Unavailable(why)) = transaction.answer().await else {
                panic!("{script}")
            };
            assert!(why.contains(words), "{why}");
        }
        drop(transaction);
        upstream.close();
        scripted.finish(1).await;
    }
}

#[tokio::test]
async fn nobody_there() {
    let address = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let upstream = upstream(address);
    let mut transaction = upstream.transaction(identity("alice"));
    assert_eq!(ask_one(&mut transaction, MAIL).await, "Unavailable");
    assert_eq!(ask_one(&mut transaction, &rcpt("r1")).await, "Unavailable");
    assert!(upstream.offers().is_none());
}

#[tokio::test]
async fn connect_timeout_bounds_all_of_it() {
    let scripted = Scripted::start(&["> 220 mail\n< EHLO gatepost.test\n"]).await;
    let upstream = Upstream::open(Settings {
        connect_timeout: Duration::from_millis(200),
        ..settings(scripted.address)
    })
    .unwrap();
    let begun = Instant::now();
    let mut transaction = upstream.transaction(identity("alice"));
    assert_eq!(ask_one(&mut transaction, MAIL).await, "Unavailable");
    assert!(begun.elapsed() < Duration::from_secs(3));
    scripted.finish(1).await;
}

#[tokio::test]
async fn a_missing_extension_is_not_worked_around() {
    let script = format!("{READY_PLAIN}< {MAIL}\n> 250 2.1.0 ok\n< {}\n> 250 2.1.5 ok\n", rcpt("r2"));
    let scripted = Scripted::start(&[&script]).await;
    let upstream = upstream(scripted.address);
    let mut transaction = upstream.transaction(identity("alice"));
    let utf8 = "MAIL FROM:<s@a.example> SMTPUTF8";
    assert_eq!(ask_one(&mut transaction, utf8).await, "MissingExtension");
    let notify = format!("{} NOTIFY=NEVER", rcpt("r1"));
    let answers = ask(&mut transaction, &[MAIL.to_owned(), notify, rcpt("r2")]).await;
    assert_eq!(answers, ["250 2.1.0 ok", "MissingExtension", "250 2.1.5 ok"]);
    drop(transaction);
    upstream.close();
    scripted.finish(1).await;
}

#[tokio::test]
async fn what_was_pipelined_behind_a_refused_mail_is_answered_by_the_upstream() {
    let script =
        format!("{READY}< {MAIL}\n<+ {}\n> 550 5.7.1 not you\n> 503 5.5.1 need MAIL\n< QUIT", rcpt("r1"));
    let scripted = Scripted::start(&[&script]).await;
    let upstream = upstream(scripted.address);
    let mut transaction = upstream.transaction(identity("alice"));
    let answers = ask(&mut transaction, &[MAIL.to_owned(), rcpt("r1")]).await;
    assert_eq!(answers, ["550 5.7.1 not you", "503 5.5.1 need MAIL"]);
    assert!(transaction.begin_data().await.is_err());
    drop(transaction);
    upstream.close();
    scripted.finish(1).await;
}

#[tokio::test]
async fn what_is_no_smtp_is_no_answer() {
    for garbage in ["> what?", "> 250-a\n> 550 b", "> 999 no such code", "> 354 go ahead", "> 2500 ok"] {
        let first = format!("{READY}< {MAIL}\n<+ {}\n> 250 2.1.0 ok\n{garbage}\n", rcpt("r1"));
        let second = format!("{READY}< {MAIL}\n> 250 2.1.0 ok\n< {}\n> 250 2.1.5 two\n", rcpt("r2"));
        let scripted = Scripted::start(&[&first, &second]).await;
        let upstream = upstream(scripted.address);
        let mut transaction = upstream.transaction(identity("alice"));
        let answers = ask(&mut transaction, &[MAIL.to_owned(), rcpt("r1")]).await;
        assert_eq!(answers, ["250 2.1.0 ok", "Protocol"], "{garbage}");
        assert_eq!(ask_one(&mut transaction, &rcpt("r2")).await, "250 2.1.5 two");
        drop(transaction);
        upstream.close();
        scripted.finish(2).await;
    }
}

#[tokio::test]
async fn a_reply_to_nothing_never_answers_the_next_question() {
    let first = format!("{READY}< {MAIL}\n> 250 2.1.0 ok\n> 550 5.1.1 for whom?\n");
    let second = format!("{READY}< {MAIL}\n> 250 2.1.0 ok\n< {}\n> 250 2.1.5 r1\n", rcpt("r1"));
    let scripted = Scripted::start(&[&first, &second]).await;
    let upstream = upstream(scripted.address);
    let mut transaction = upstream.transaction(identity("alice"));
    assert_eq!(ask_one(&mut transaction, MAIL).await, "250 2.1.0 ok");
    assert_eq!(ask_one(&mut transaction, &rcpt("r1")).await, "250 2.1.5 r1");
    assert!(!transaction.is_in_doubt());
    drop(transaction);
    upstream.close();
    scripted.finish(2).await;
}

/// The answers before it can no longer be matched to questions: the rest is asked over a fresh connection, and nothing
/// is relayed.
#[tokio::test]
async fn a_reply_too_many_behind_answered_recipients_leaves_them_in_doubt() {
    let first = format!("{}< {}\n> 550 5.1.1 late\n> 250 2.1.5 r2\n", one_recipient(), rcpt("r2"));
    let second = format!("{READY}< {MAIL}\n> 250 2.1.0 ok\n< {}\n> 250 2.1.5 r2\n< RSET", rcpt("r2"));
    let scripted = Scripted::start(&[&first, &second]).await;
    let upstream = upstream(scripted.address);
    let mut transaction = ready_for_data(&upstream).await;
    assert_eq!(ask_one(&mut transaction, &rcpt("r2")).await, "250 2.1.5 r2");
    assert!(transaction.is_in_doubt());
    assert!(matches!(transaction.begin_data().await, Err(Stopped::Fault(Fault::Protocol(_)))));
    assert!(matches!(transaction.begin_chunks().await, Err(Stopped::Fault(Fault::Protocol(_)))));
    drop(transaction);
    upstream.close();
    scripted.finish(2).await;
}

/// The same if it is noticed only when the connection is given up: because the client is silent, or after eight
/// refusals.
#[tokio::test]
async fn a_reply_too_many_before_a_connection_is_given_up_leaves_them_in_doubt() {
    for refusals in [0, 8] {
        let mut first = one_recipient();
        for _ in 0..refusals {
            first.push_str(&format!("< {}\n> 450 4.2.0 later\n", rcpt("r0")));
        }
        first.push_str("pause 100\n> 250 2.1.5 late\n< QUIT");
        let second = format!("{READY}< {MAIL}\n> 250 2.1.0 ok\n< {}\n> 250 2.1.5 r2\n< RSET", rcpt("r2"));
        let scripted = Scripted::start(&[&first, &second]).await;
        let upstream = upstream(scripted.address);
        let mut transaction = ready_for_data(&upstream).await;
        for _ in 0..refusals {
            assert_eq!(ask_one(&mut transaction, &rcpt("r0")).await, "450 4.2.0 later");
        }
        let stream = &mut transaction.connection.as_mut().unwrap().stream;
        timeout(DEADLINE, stream.readable()).await.expect("a reply too many").unwrap();
        assert!(!transaction.is_in_doubt());
        if refusals == 0 {
            transaction.rest();
            assert!(transaction.is_in_doubt());
        }
        assert_eq!(ask_one(&mut transaction, &rcpt("r2")).await, "250 2.1.5 r2");
        assert!(transaction.is_in_doubt(), "{refusals}");
        assert!(matches!(transaction.begin_data().await, Err(Stopped::Fault(Fault::Protocol(_)))));
        drop(transaction);
        upstream.close();
        scripted.finish(2).await;
    }
}

/// RFC 5321 3.8: it may come at any time.
#[tokio::test]
async fn a_421_is_no_reply_too_many() {
    let first = format!("{}> 421 4.3.2 closing\nclose", one_recipient());
    let second = format!("{}< DATA\n> 354 go\n", one_recipient());
    let scripted = Scripted::start(&[&first, &second]).await;
    let upstream = upstream(scripted.address);
    let mut transaction = ready_for_data(&upstream).await;
    assert_eq!(transaction.begin_data().await, Ok(()));
    drop(transaction);
    upstream.close();
    scripted.finish(2).await;
}

#[tokio::test]
async fn a_reply_without_end_is_cut_off() {
    let endless = "> 250-x\n".repeat(12_000);
    let script = format!("{READY}< {MAIL}\n{endless}close");
    let scripted = Scripted::start(&[&script]).await;
    let upstream = upstream(scripted.address);
    let mut transaction = upstream.transaction(identity("alice"));
    assert_eq!(ask_one(&mut transaction, MAIL).await, "Protocol");
}

#[tokio::test]
async fn replies_may_come_octet_by_octet() {
    let script = format!(
        "drip\n{READY}< {MAIL}\n<+ {}\n> 250 2.1.0 ok\n> 550-5.1.1 no\n> 550 5.1.1 such user\n",
        rcpt("r1")
    );
    let scripted = Scripted::start(&[&script]).await;
    let upstream = upstream(scripted.address);
    let mut transaction = upstream.transaction(identity("alice"));
    let answers = ask(&mut transaction, &[MAIL.to_owned(), rcpt("r1")]).await;
    assert_eq!(answers[0], "250 2.1.0 ok");
    assert!(answers[1].ends_with("such user"), "{answers:?}");
    drop(transaction);
    upstream.close();
    scripted.finish(1).await;
}

/// A caller that stops waiting and comes back finds the remaining answers in order.
#[tokio::test]
async fn to_stop_waiting_for_an_answer_loses_none() {
    let (r1, r2) = (rcpt("r1"), rcpt("r2"));
    let script = format!(
        "drip\n{READY}< {MAIL}\n> 250 2.1.0 zero\n< {r1}\n<+ {r2}\n> 250 2.1.5 one\n> 550 5.1.1 two\n"
    );
    let scripted = Scripted::start(&[&script]).await;
    let upstream = upstream(scripted.address);
    let mut transaction = upstream.transaction(identity("alice"));
    assert_eq!(ask_one(&mut transaction, MAIL).await, "250 2.1.0 zero");
    transaction.ask(question(&r1));
    transaction.ask(question(&r2));
    let (mut answers, mut stopped) = (Vec::new(), 0);
    let begun = Instant::now();
    while transaction.outstanding() > 0 && begun.elapsed() < DEADLINE {
        // Polled once and dropped.
        let polled = pin!(transaction.answer()).poll(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready(answer) = polled {
            answers.push(told(&answer));
        } else {
            stopped += 1;
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(answers, ["250 2.1.5 one", "550 5.1.1 two"]);
    assert!(stopped > 0);
    drop(transaction);
    upstream.close();
    scripted.finish(1).await;
}
