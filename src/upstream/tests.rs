//! Transactions against a scripted upstream: what goes over the wire, and what the caller is told.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::scripted::{DEADLINE, Scripted};
use super::*;
use crate::clock::Timestamp;
use crate::smtp::Command;

/// As far as MAIL, with PIPELINING.
const READY: &str = "> 220 mail ESMTP\n< EHLO gatepost.test\n> 250-mail\n> 250-8BITMIME\n> 250 PIPELINING\n";
/// The same without any extension.
const READY_PLAIN: &str = "> 220 mail ESMTP\n< EHLO gatepost.test\n> 250 mail\n";
const MAIL: &str = "MAIL FROM:<s@a.example>";

fn settings(address: SocketAddr) -> Settings {
    Settings {
        host: address.ip().to_string(),
        port: address.port(),
        protection: Protection::Off,
        tls_name: "mail.example.org".to_owned(),
        hostname: "gatepost.test".to_owned(),
        xclient: true,
        connect_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(5),
        data_timeout: Duration::from_secs(5),
        max_connections: 10,
    }
}

fn upstream(address: SocketAddr) -> Upstream {
    Upstream::new(settings(address), None)
}

fn identity(login: &str) -> Arc<ClientIdentity> {
    Arc::new(ClientIdentity {
        session: SessionId::new(Timestamp::default()),
        name: None,
        address: "192.0.2.7:4711".parse().unwrap(),
        helo: Some("pc".to_owned()),
        extended: true,
        login: Some(login.to_owned()),
    })
}

fn question(line: &str) -> Question {
    match Command::parse(line.as_bytes()).unwrap() {
        Command::Mail(mail) => Question::Mail(mail),
        Command::Rcpt(rcpt) => Question::Rcpt(rcpt),
        other => panic!("{other:?}"),
    }
}

fn rcpt(name: &str) -> String {
    format!("RCPT TO:<{name}@b.example>")
}

/// The reply, or the name of the fault.
fn told(answer: &Answer) -> String {
    match answer {
        Answer::Replied(reply) => reply.to_string(),
        Answer::None(fault) => {
            let name = format!("{fault:?}");
            name.split('(').next().unwrap().to_owned()
        }
    }
}

async fn answer(transaction: &mut Transaction) -> String {
    told(&timeout(DEADLINE, transaction.answer()).await.expect("an answer in time"))
}

/// Asks all at once and takes the answers.
async fn ask(transaction: &mut Transaction, lines: &[String]) -> Vec<String> {
    for line in lines {
        transaction.ask(question(line));
    }
    let mut answers = Vec::new();
    while transaction.outstanding() > 0 {
        answers.push(answer(transaction).await);
    }
    answers
}

async fn ask_one(transaction: &mut Transaction, line: &str) -> String {
    ask(transaction, &[line.to_owned()]).await.remove(0)
}

/// A transaction with one recipient that stands before DATA.
async fn ready_for_data(upstream: &Upstream) -> Transaction {
    let mut transaction = upstream.transaction(identity("alice"));
    let answers = ask(&mut transaction, &[MAIL.to_owned(), rcpt("r1")]).await;
    assert_eq!(answers, ["250 2.1.0 ok", "250 2.1.5 ok"]);
    transaction
}

/// Script: [`READY`] and one accepted recipient.
fn one_recipient() -> String {
    format!("{READY}< {MAIL}\n<+ {}\n> 250 2.1.0 ok\n> 250 2.1.5 ok\n", rcpt("r1"))
}

mod questions {
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
        upstream.close().await;
        assert!(upstream.offers().unwrap().eight_bit_mime);
        scripted.finish(1).await;
    }

    #[tokio::test]
    async fn without_pipelining_one_at_a_time() {
        let (r1, r2) = (rcpt("r1"), rcpt("r2"));
        let script = format!(
            "{READY_PLAIN}< {MAIL}\n> 250 2.1.0 ok\n< {r1}\n> 250 2.1.5 ok\n< {r2}\n> 250 2.1.5 ok\n"
        );
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
        upstream.close().await;
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
        upstream.close().await;
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
                "> 220 mail\n< EHLO gatepost.test\n> 250-mail\n> 250 XCLIENT ADDR\n< XCLIENT ADDR=192.0.2.7\n> 550 5.7.0 insufficient authorization\n",
                "550 5.7.0 insufficient authorization",
            ),
            // what it thinks of the client's address
            (
                "> 220 mail\n< EHLO gatepost.test\n> 250-mail\n> 250 XCLIENT ADDR\n< XCLIENT ADDR=192.0.2.7\n> 554 5.7.1 listed\n",
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
            upstream.close().await;
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
        let upstream = Upstream::new(
            Settings { connect_timeout: Duration::from_millis(200), ..settings(scripted.address) },
            None,
        );
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
        upstream.close().await;
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
        upstream.close().await;
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
            upstream.close().await;
            scripted.finish(2).await;
        }
    }

    #[tokio::test]
    async fn a_reply_to_nothing_never_answers_the_next_question() {
        let first = format!("{READY}< {MAIL}\n> 250 2.1.0 ok\n> 250 2.1.5 for whom?\n");
        let second = format!("{READY}< {MAIL}\n> 250 2.1.0 ok\n< {}\n> 550 5.1.1 no\n", rcpt("r2"));
        let scripted = Scripted::start(&[&first, &second]).await;
        let upstream = upstream(scripted.address);
        let mut transaction = upstream.transaction(identity("alice"));
        assert_eq!(ask_one(&mut transaction, MAIL).await, "250 2.1.0 ok");
        assert_eq!(ask_one(&mut transaction, &rcpt("r1")).await, "Protocol");
        assert_eq!(ask_one(&mut transaction, &rcpt("r2")).await, "550 5.1.1 no");
        drop(transaction);
        upstream.close().await;
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
}

mod replacement {
    use super::*;

    fn refused(count: usize) -> String {
        "> 550 5.1.1 unknown\n".repeat(count)
    }

    fn names(range: std::ops::RangeInclusive<usize>) -> Vec<String> {
        range.map(|number| rcpt(&format!("x{number}"))).collect()
    }

    /// Script: these are heard, in one segment.
    fn heard(lines: &[String]) -> String {
        format!("< {}\n", lines.join("\n<+ "))
    }

    #[tokio::test]
    async fn after_eight_refusals() {
        let mut first = format!("{READY}< {MAIL}\n<+ {}\n> 250 2.1.0 ok\n> 250 2.1.5 ok\n", rcpt("good"));
        for name in names(1..=8) {
            first.push_str(&format!("< {name}\n> 550 5.1.1 unknown\n"));
        }
        first.push_str("< QUIT");
        let second = format!(
            "{READY}< {MAIL}\n<+ {}\n> 250 2.1.0 again\n> 250 2.1.5 again\n< {}\n> 550 5.1.1 ninth\n< DATA\n> 354 go\n< .\n> 250 2.0.0 queued\n",
            rcpt("good"),
            rcpt("x9")
        );
        let scripted = Scripted::start(&[&first, &second]).await;
        let upstream = upstream(scripted.address);
        let mut transaction = upstream.transaction(identity("alice"));
        let answers = ask(&mut transaction, &[MAIL.to_owned(), rcpt("good")]).await;
        assert_eq!(answers, ["250 2.1.0 ok", "250 2.1.5 ok"]);
        for name in names(1..=8) {
            assert_eq!(ask_one(&mut transaction, &name).await, "550 5.1.1 unknown");
        }
        assert_eq!(ask_one(&mut transaction, &rcpt("x9")).await, "550 5.1.1 ninth");
        assert!(transaction.begin_data().await.unwrap().is_none());
        assert_eq!(transaction.finish_data(b".\r\n").await.unwrap().to_string(), "250 2.0.0 queued");
        drop(transaction);
        upstream.close().await;
        scripted.finish(2).await;
    }

    #[tokio::test]
    async fn a_dirty_list_is_asked_eight_at_a_time() {
        // the first batch: nothing was refused yet. The upstream answers eight of them and then ever slower.
        let all = names(1..=20);
        let first = format!("{READY}< {MAIL}\n<+ {}\n> 250 2.1.0 ok\n{}", all.join("\n<+ "), refused(8));
        let fresh = |lines: &[String]| {
            format!("{READY}< {MAIL}\n> 250 2.1.0 ok\n{}{}", heard(lines), refused(lines.len()))
        };
        let (second, third) = (fresh(&all[8..16]), fresh(&all[16..]));
        let scripted = Scripted::start(&[&first, &second, &third]).await;
        let upstream = upstream(scripted.address);
        let mut transaction = upstream.transaction(identity("thief"));
        let mut lines = vec![MAIL.to_owned()];
        lines.extend(all);
        let answers = ask(&mut transaction, &lines).await;
        assert_eq!(answers.len(), 21);
        assert!(answers[1..].iter().all(|answer| answer == "550 5.1.1 unknown"), "{answers:?}");
        drop(transaction);
        upstream.close().await;
        scripted.finish(3).await;
    }

    #[tokio::test]
    async fn an_upstream_that_hangs_up_after_twenty_errors() {
        let all = names(1..=30);
        let first = format!(
            "{READY}< {MAIL}\n<+ {}\n> 250 2.1.0 ok\n{}> 421 4.7.0 too many errors\nclose",
            all.join("\n<+ "),
            refused(20)
        );
        let second = format!("{READY}< {MAIL}\n> 250 2.1.0 ok\n{}{}", heard(&all[20..28]), refused(8));
        let third = format!("{READY}< {MAIL}\n> 250 2.1.0 ok\n{}{}", heard(&all[28..]), refused(2));
        let scripted = Scripted::start(&[&first, &second, &third]).await;
        let upstream = upstream(scripted.address);
        let mut transaction = upstream.transaction(identity("thief"));
        let mut lines = vec![MAIL.to_owned()];
        lines.extend(all);
        let answers = ask(&mut transaction, &lines).await;
        assert!(answers[1..].iter().all(|answer| answer == "550 5.1.1 unknown"), "{answers:?}");
        assert_eq!(answers.len(), 31);
        drop(transaction);
        upstream.close().await;
        scripted.finish(3).await;
    }

    #[tokio::test]
    async fn closed_in_mid_batch_the_client_sees_none_of_it() {
        for end in ["close", "> 421 4.3.2 shutting down\nclose"] {
            let (r1, r2, r3) = (rcpt("r1"), rcpt("r2"), rcpt("r3"));
            let first =
                format!("{READY}< {MAIL}\n<+ {r1}\n<+ {r2}\n<+ {r3}\n> 250 2.1.0 ok\n> 250 2.1.5 one\n{end}");
            let second = format!(
                "{READY}< {MAIL}\n<+ {r1}\n> 250 2.1.0 again\n> 250 2.1.5 again\n< {r2}\n<+ {r3}\n> 550 5.1.1 two\n> 250 2.1.5 three\n"
            );
            let scripted = Scripted::start(&[&first, &second]).await;
            let upstream = upstream(scripted.address);
            let mut transaction = upstream.transaction(identity("alice"));
            let answers = ask(&mut transaction, &[MAIL.to_owned(), r1, r2, r3]).await;
            assert_eq!(answers, ["250 2.1.0 ok", "250 2.1.5 one", "550 5.1.1 two", "250 2.1.5 three"]);
            drop(transaction);
            upstream.close().await;
            scripted.finish(2).await;
        }
    }

    #[tokio::test]
    async fn as_long_as_each_answers_one_it_goes_on() {
        let r: Vec<_> = (1..=3).map(|number| rcpt(&format!("r{number}"))).collect();
        let first = format!("{READY}< {MAIL}\n<+ {}\n> 250 2.1.0 ok\n> 250 2.1.5 1\nclose", r.join("\n<+ "));
        let second = format!(
            "{READY}< {MAIL}\n<+ {}\n> 250 2.1.0 ok\n> 250 2.1.5 ok\n< {}\n<+ {}\n> 250 2.1.5 2\nclose",
            r[0], r[1], r[2]
        );
        let third = format!(
            "{READY}< {MAIL}\n<+ {}\n<+ {}\n> 250 2.1.0 ok\n> 250 2.1.5 ok\n> 250 2.1.5 ok\n< {}\n> 250 2.1.5 3\n",
            r[0], r[1], r[2]
        );
        let scripted = Scripted::start(&[&first, &second, &third]).await;
        let upstream = upstream(scripted.address);
        let mut transaction = upstream.transaction(identity("alice"));
        let mut lines = vec![MAIL.to_owned()];
        lines.extend(r);
        let answers = ask(&mut transaction, &lines).await;
        assert_eq!(answers, ["250 2.1.0 ok", "250 2.1.5 1", "250 2.1.5 2", "250 2.1.5 3"]);
        drop(transaction);
        upstream.close().await;
        scripted.finish(3).await;
    }

    #[tokio::test]
    async fn a_fresh_one_that_answers_nothing_ends_it_for_all_outstanding() {
        let (r1, r2) = (rcpt("r1"), rcpt("r2"));
        let first = format!("{READY}< {MAIL}\n<+ {r1}\n<+ {r2}\n> 250 2.1.0 ok\nclose");
        let table = [
            format!("{READY}< {MAIL}\n> 250 2.1.0 ok\n< {r1}\nclose"),
            format!("{READY}< {MAIL}\nclose"),
            "> 421 4.3.2 no\nclose".to_owned(),
            "close".to_owned(),
        ];
        for second in table {
            let third = format!("{READY}< {MAIL}\n> 250 2.1.0 ok\n< {}\n> 250 2.1.5 ok\n", rcpt("r3"));
            let scripted = Scripted::start(&[&first, &second, &third]).await;
            let upstream = upstream(scripted.address);
            let mut transaction = upstream.transaction(identity("alice"));
            let answers = ask(&mut transaction, &[MAIL.to_owned(), r1.clone(), r2.clone()]).await;
            assert_eq!(answers, ["250 2.1.0 ok", "Unavailable", "Unavailable"], "{second}");
            // a later question tries anew
            assert_eq!(ask_one(&mut transaction, &rcpt("r3")).await, "250 2.1.5 ok");
            drop(transaction);
            upstream.close().await;
            scripted.finish(3).await;
        }
    }

    #[tokio::test]
    async fn mail_is_not_tried_twice_on_fresh_connections() {
        for end in ["close", "> 421 4.3.2 no\nclose"] {
            let script = format!("{READY}< {MAIL}\n<+ {}\n{end}", rcpt("r1"));
            let scripted = Scripted::start(&[&script]).await;
            let upstream = upstream(scripted.address);
            let mut transaction = upstream.transaction(identity("alice"));
            let answers = ask(&mut transaction, &[MAIL.to_owned(), rcpt("r1")]).await;
            assert_eq!(answers, ["Unavailable", "Unavailable"]);
            scripted.finish(1).await;
        }
    }

    #[tokio::test]
    async fn silence_fails_the_one_question_and_the_others_go_on() {
        let (r1, r2) = (rcpt("r1"), rcpt("r2"));
        let first = format!("{READY}< {MAIL}\n<+ {r1}\n<+ {r2}\n> 250 2.1.0 ok\n");
        let second = format!("{READY}< {MAIL}\n> 250 2.1.0 ok\n< {r2}\n> 250 2.1.5 two\n");
        let scripted = Scripted::start(&[&first, &second]).await;
        let upstream = Upstream::new(
            Settings { timeout: Duration::from_millis(300), ..settings(scripted.address) },
            None,
        );
        let mut transaction = upstream.transaction(identity("alice"));
        let answers = ask(&mut transaction, &[MAIL.to_owned(), r1, r2]).await;
        assert_eq!(answers, ["250 2.1.0 ok", "Unavailable", "250 2.1.5 two"]);
        drop(transaction);
        upstream.close().await;
        scripted.finish(2).await;
    }

    #[tokio::test]
    async fn what_is_refused_at_the_repetition_is_never_relayed() {
        let (r1, r2, r3) = (rcpt("r1"), rcpt("r2"), rcpt("r3"));
        let first = format!(
            "{READY}< {MAIL}\n<+ {r1}\n<+ {r2}\n> 250 2.1.0 ok\n> 250 2.1.5 ok\n> 250 2.1.5 ok\n< {r3}\nclose"
        );
        // a recipient: the transaction is lost, questions go on
        let second = format!(
            "{READY}< {MAIL}\n<+ {r1}\n<+ {r2}\n> 250 2.1.0 ok\n> 450 4.2.1 busy\n> 250 2.1.5 ok\n< {r3}\n> 550 5.1.1 three\n< RSET\n"
        );
        let scripted = Scripted::start(&[&first, &second]).await;
        let one = upstream(scripted.address);
        let mut transaction = one.transaction(identity("alice"));
        let answers = ask(&mut transaction, &[MAIL.to_owned(), r1.clone(), r2.clone()]).await;
        assert_eq!(answers.len(), 3);
        assert_eq!(ask_one(&mut transaction, &r3).await, "550 5.1.1 three");
        let fault = transaction.begin_data().await.unwrap_err();
        assert!(matches!(&fault, Fault::NotRepeated(why) if why.contains("450 4.2.1 busy")), "{fault:?}");
        drop(transaction);
        one.close().await;
        let heard = scripted.finish(2).await;
        assert!(!heard.concat().contains("DATA"));

        // MAIL: nothing can be asked any more; nor where what it needs is not offered any more
        let first = first.replace(MAIL, "MAIL FROM:<s@a.example> BODY=8BITMIME");
        let without = READY_PLAIN.to_owned();
        let refusing = format!(
            "{READY}< MAIL FROM:<s@a.example> BODY=8BITMIME\n<+ {r1}\n<+ {r2}\n> 550 5.7.1 no\n> 503 5.5.1 no\n> 503 5.5.1 no\n"
        );
        for second in [without, refusing] {
            let scripted = Scripted::start(&[&first, &second]).await;
            let upstream = upstream(scripted.address);
            let mut transaction = upstream.transaction(identity("alice"));
            let mail = "MAIL FROM:<s@a.example> BODY=8BITMIME".to_owned();
            assert_eq!(ask(&mut transaction, &[mail, r1.clone(), r2.clone()]).await.len(), 3);
            assert_eq!(ask_one(&mut transaction, &r3).await, "Unavailable");
            assert_eq!(ask_one(&mut transaction, &r3).await, "Unavailable");
            assert!(matches!(transaction.begin_data().await, Err(Fault::NotRepeated(_))));
            drop(transaction);
            upstream.close().await;
            scripted.finish(2).await;
        }
    }

    #[tokio::test]
    async fn before_data_the_transaction_is_repeated_once() {
        let first = format!("{}close", one_recipient());
        let second = format!("{}< DATA\nclose", one_recipient());
        let third = format!("{}< DATA\n> 354 go\n< .\n> 250 2.0.0 queued\n", one_recipient());
        // lost since the last RCPT
        let scripted = Scripted::start(&[&first, &third]).await;
        let one = upstream(scripted.address);
        let mut transaction = ready_for_data(&one).await;
        assert!(transaction.begin_data().await.unwrap().is_none());
        assert!(transaction.finish_data(b".\r\n").await.is_ok());
        drop(transaction);
        one.close().await;
        scripted.finish(2).await;
        // and lost again
        let scripted = Scripted::start(&[&first, &second]).await;
        let upstream = upstream(scripted.address);
        let mut transaction = ready_for_data(&upstream).await;
        assert!(matches!(transaction.begin_data().await, Err(Fault::Unavailable(_))));
        drop(transaction);
        upstream.close().await;
        scripted.finish(2).await;
    }
}

mod content {
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
        assert!(transaction.begin_data().await.unwrap().is_none());
        assert!(transaction.write_data(b"Received: by us\r\n").await.unwrap().is_none());
        assert!(transaction.write_data(b"Subject: x\r\n\r\n..dot\r\n").await.unwrap().is_none());
        assert_eq!(transaction.finish_data(b".\r\n").await.unwrap().to_string(), "250 2.0.0 queued as 1");
        drop(transaction);
        upstream.close().await;
        scripted.finish(1).await;
    }

    #[tokio::test]
    async fn a_long_message_arrives_octet_for_octet() {
        let script = format!("{}< DATA\n> 354 go\n", one_recipient());
        let scripted = Scripted::start(&[&script]).await;
        let upstream = Upstream::new(
            Settings { data_timeout: Duration::from_secs(1), ..settings(scripted.address) },
            None,
        );
        let mut transaction = ready_for_data(&upstream).await;
        assert!(transaction.begin_data().await.unwrap().is_none());
        let mut sent = String::new();
        for number in 0..3000 {
            let piece = format!("{number} {}\r\n", "x".repeat(number * 7 % 20_000));
            assert!(transaction.write_data(piece.as_bytes()).await.unwrap().is_none());
            sent.push_str(&piece);
        }
        // the script never answers
        assert!(matches!(transaction.finish_data(b".\r\n").await, Err(Fault::Ambiguous(_))));
        drop(transaction);
        upstream.close().await;
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
        assert_eq!(transaction.begin_data().await.unwrap().unwrap().to_string(), "554 5.7.1 no");
        drop(transaction);
        upstream.close().await;
        scripted.finish(1).await;
        // 2yz to DATA is none
        let script = format!("{}< DATA\n> 250 2.0.0 fine\n", one_recipient());
        let scripted = Scripted::start(&[&script]).await;
        let upstream = super::upstream(scripted.address);
        let mut transaction = ready_for_data(&upstream).await;
        assert!(matches!(transaction.begin_data().await, Err(Fault::Protocol(_))));
        drop(transaction);
        upstream.close().await;
        let heard = scripted.finish(1).await.remove(0);
        assert!(heard.ends_with("DATA\r\n"), "{heard}");
    }

    /// Writes 64 KiB at a time until something happens.
    async fn write_on(transaction: &mut Transaction) -> Result<Option<Reply>, Fault> {
        let piece = "x".repeat(64 * 1024 - 2) + "\r\n";
        for _ in 0..2000 {
            let outcome = timeout(DEADLINE, transaction.write_data(piece.as_bytes())).await.unwrap();
            if !matches!(outcome, Ok(None)) {
                return outcome;
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
            assert!(transaction.begin_data().await.unwrap().is_none());
            let reply = write_on(&mut transaction).await.unwrap().unwrap();
            assert_eq!(reply.to_string(), "552 5.3.4 too big");
            // it is over
            assert!(matches!(transaction.finish_data(b".\r\n").await, Err(Fault::Unavailable(_))));
            drop(transaction);
            upstream.close().await;
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
        assert!(transaction.begin_data().await.unwrap().is_none());
        let outcome = match transaction.write_data(b"x\r\n").await {
            Ok(None) => transaction.finish_data(b".\r\n").await.map(Some),
            outcome => outcome,
        };
        assert!(matches!(outcome, Err(Fault::Protocol(_))), "{outcome:?}");
        drop(transaction);
        upstream.close().await;
        let heard = scripted.finish(1).await.remove(0);
        assert!(!heard.ends_with(".\r\n"), "{heard}");
    }

    #[tokio::test]
    async fn an_end_without_reply_is_ambiguous() {
        for end in ["close", "> what?\n", "> 354 go on\n", "> 250-never\nclose", ""] {
            let script = format!("{}< DATA\n> 354 go\n< x\n<+ .\n{end}", one_recipient());
            let scripted = Scripted::start(&[&script]).await;
            let upstream = Upstream::new(
                Settings { data_timeout: Duration::from_millis(300), ..settings(scripted.address) },
                None,
            );
            let mut transaction = ready_for_data(&upstream).await;
            assert!(transaction.begin_data().await.unwrap().is_none());
            assert!(transaction.write_data(b"x\r\n").await.unwrap().is_none());
            let outcome = transaction.finish_data(b".\r\n").await;
            assert!(matches!(outcome, Err(Fault::Ambiguous(_))), "{end}: {outcome:?}");
            drop(transaction);
            upstream.close().await;
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
            assert!(transaction.begin_data().await.unwrap().is_none());
            assert_eq!(transaction.finish_data(b".\r\n").await.unwrap().to_string(), reply);
            drop(transaction);
            upstream.close().await;
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
            assert!(transaction.begin_data().await.unwrap().is_none());
            if how != "drop before anything" {
                let big = "y".repeat(100_000) + "\r\n";
                assert!(transaction.write_data(big.as_bytes()).await.unwrap().is_none());
                assert!(transaction.write_data(b"last line\r\n").await.unwrap().is_none());
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
        assert!(transaction.begin_data().await.unwrap().is_none());
        assert!(timeout(Duration::from_millis(50), transaction.finish_data(b".\r\n")).await.is_err());
        assert!(transaction.finish_data(b".\r\n").await.is_err());
        drop(transaction);
        upstream.close().await;
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
        let upstream =
            Upstream::new(Settings { timeout: Duration::from_millis(300), ..settings(address) }, None);
        let mut transaction = ready_for_data(&upstream).await;
        assert!(transaction.begin_data().await.unwrap().is_none());
        let stream = server.await.unwrap();
        let fault = write_on(&mut transaction).await.unwrap_err();
        assert!(matches!(fault, Fault::Unavailable(_)), "{fault:?}");
        drop(stream);
    }
}

mod connections {
    use super::*;

    fn ready_with_xclient(login: &str) -> String {
        format!(
            "> 220 mail ESMTP\n< EHLO gatepost.test\n> 250-mail\n> 250-PIPELINING\n> 250 XCLIENT ADDR LOGIN\n\
             < XCLIENT ADDR=192.0.2.7 LOGIN={login}\n> 220 mail ESMTP\n\
             < EHLO gatepost.test\n> 250-mail\n> 250-DSN\n> 250 PIPELINING\n"
        )
    }

    /// Script: MAIL is heard and accepted.
    fn mail() -> String {
        format!("< {MAIL}\n> 250 2.1.0 ok\n")
    }

    async fn use_once(upstream: &Upstream, identity: &Arc<ClientIdentity>) {
        let mut transaction = upstream.transaction(Arc::clone(identity));
        assert_eq!(ask_one(&mut transaction, MAIL).await, "250 2.1.0 ok");
    }

    #[tokio::test]
    async fn xclient_names_the_client_and_the_connection_serves_it_alone() {
        let alice = format!(
            "{}{}< RSET\n> 250 ok\n{}< RSET\n> 250 ok\n< QUIT",
            ready_with_xclient("alice"),
            mail(),
            mail()
        );
        let bob = format!("{}{}< RSET\n> 250 ok\n< QUIT", ready_with_xclient("bob"), mail());
        let scripted = Scripted::start(&[&alice, &bob]).await;
        let upstream = upstream(scripted.address);
        let (alice, bob) = (identity("alice"), identity("bob"));
        use_once(&upstream, &alice).await;
        use_once(&upstream, &bob).await;
        let mut transaction = upstream.transaction(Arc::clone(&alice));
        assert_eq!(ask_one(&mut transaction, MAIL).await, "250 2.1.0 ok");
        // EHLO after XCLIENT is what holds; offers() is what was said before it
        assert!(transaction.extensions().unwrap().dsn);
        assert!(!upstream.offers().unwrap().dsn);
        drop(transaction);
        upstream.end_session(alice.session);
        upstream.end_session(bob.session);
        scripted.finish(2).await;
    }

    #[tokio::test]
    async fn the_same_session_as_someone_else_gets_a_connection_of_its_own() {
        let before = format!("{}{}", ready_with_xclient("[UNAVAILABLE]"), mail());
        let after = format!("{}{}", ready_with_xclient("alice"), mail());
        let scripted = Scripted::start(&[&before, &after]).await;
        let upstream = upstream(scripted.address);
        let authenticated = identity("alice");
        let relay = Arc::new(ClientIdentity { login: None, ..ClientIdentity::clone(&authenticated) });
        use_once(&upstream, &relay).await;
        use_once(&upstream, &authenticated).await;
        upstream.end_session(authenticated.session);
        scripted.finish(2).await;
    }

    #[tokio::test]
    async fn without_xclient_a_connection_serves_anybody() {
        let plain = format!("{READY}{}< RSET\n> 250 ok\n{}< RSET\n> 250 ok\n< QUIT", mail(), mail());
        let scripted = Scripted::start(&[&plain]).await;
        let one = upstream(scripted.address);
        use_once(&one, &identity("alice")).await;
        use_once(&one, &identity("bob")).await;
        one.close().await;
        scripted.finish(1).await;
        // offered, and not wanted
        let unwanted = plain.replace("> 250 PIPELINING", "> 250 XCLIENT ADDR LOGIN");
        let scripted = Scripted::start(&[&unwanted]).await;
        let other = Upstream::new(Settings { xclient: false, ..settings(scripted.address) }, None);
        use_once(&other, &identity("alice")).await;
        use_once(&other, &identity("bob")).await;
        other.close().await;
        scripted.finish(1).await;
    }

    #[tokio::test]
    async fn learning_leaves_nothing_behind() {
        let first = "> 220 mail\n< EHLO gatepost.test\n> 250-mail\n> 250 XCLIENT ADDR LOGIN\n< QUIT";
        let second = ready_with_xclient("alice") + "< QUIT";
        let third = format!("{}{}", ready_with_xclient("alice"), mail());
        let scripted = Scripted::start(&[first, &second, &third]).await;
        let upstream = upstream(scripted.address);
        let alice = identity("alice");
        assert_eq!(upstream.learn(None).await.unwrap().xclient, ["ADDR", "LOGIN"]);
        assert!(upstream.learn(Some(Arc::clone(&alice))).await.unwrap().dsn);
        use_once(&upstream, &alice).await;
        upstream.end_session(alice.session);
        scripted.finish(3).await;
    }

    #[tokio::test]
    async fn one_that_died_while_idle_costs_the_client_nothing() {
        // Closed before its next use, closed at it, and 421 at it.
        for end in [
            "close",
            "< MAIL FROM:<s@a.example>\nclose",
            "< MAIL FROM:<s@a.example>\n> 421 4.4.2 idle\nclose",
        ] {
            let first = format!("{READY}{}< RSET\n> 250 ok\n{end}", mail());
            let second = format!("{READY}{}", mail());
            let scripted = Scripted::start(&[&first, &second]).await;
            let upstream = upstream(scripted.address);
            let alice = identity("alice");
            use_once(&upstream, &alice).await;
            use_once(&upstream, &alice).await;
            upstream.close().await;
            scripted.finish(2).await;
        }
    }

    #[tokio::test]
    async fn a_reset_refused_is_the_end_of_it() {
        for reply in ["421 4.3.2 no", "500 5.5.1 what"] {
            let first = format!("{READY}{}< RSET\n> {reply}\n", mail());
            let second = format!("{READY}{}", mail());
            let scripted = Scripted::start(&[&first, &second]).await;
            let upstream = upstream(scripted.address);
            use_once(&upstream, &identity("alice")).await;
            use_once(&upstream, &identity("alice")).await;
            upstream.close().await;
            scripted.finish(2).await;
        }
    }

    #[tokio::test]
    async fn none_free_is_busy_and_a_waiting_one_gets_the_place_in_turn() {
        let script = format!("{}{}", ready_with_xclient("alice"), mail());
        let next = format!("{}{}", ready_with_xclient("bob"), mail());
        let scripted = Scripted::start(&[&script, &next]).await;
        let one = Settings { max_connections: 1, ..settings(scripted.address) };
        let patience = Duration::from_millis(300);
        let upstream = Upstream { shared: Arc::new(Shared::new(one, None, patience, IDLE_LIMIT)) };
        let mut held = upstream.transaction(identity("alice"));
        assert_eq!(ask_one(&mut held, MAIL).await, "250 2.1.0 ok");
        let mut other = upstream.transaction(identity("carol"));
        let begun = Instant::now();
        assert_eq!(ask_one(&mut other, MAIL).await, "Busy");
        assert!(begun.elapsed() >= patience && begun.elapsed() < DEADLINE);
        // one that waits gets it as soon as it is there
        let waiting = tokio::spawn({
            let upstream = upstream.clone();
            async move {
                let bob = identity("bob");
                use_once(&upstream, &bob).await;
                upstream.end_session(bob.session);
            }
        });
        tokio::task::yield_now().await;
        drop(held);
        timeout(DEADLINE, waiting).await.unwrap().unwrap();
        scripted.finish(2).await;
    }

    #[tokio::test]
    async fn an_idle_one_is_given_up_for_whoever_waits() {
        let first = format!("{}{}< RSET\n> 250 ok\n< QUIT", ready_with_xclient("alice"), mail());
        let second = format!("{}{}", ready_with_xclient("bob"), mail());
        let scripted = Scripted::start(&[&first, &second]).await;
        let upstream = Upstream::new(Settings { max_connections: 1, ..settings(scripted.address) }, None);
        let (alice, bob) = (identity("alice"), identity("bob"));
        use_once(&upstream, &alice).await;
        let begun = Instant::now();
        use_once(&upstream, &bob).await;
        assert!(begun.elapsed() < Duration::from_secs(3));
        upstream.end_session(bob.session);
        scripted.finish(2).await;
    }

    #[tokio::test]
    async fn an_idle_one_grows_too_old() {
        let script = format!("{READY}{}< RSET\n> 250 ok\n< QUIT", mail());
        let scripted = Scripted::start(&[&script]).await;
        let shared = Shared::new(settings(scripted.address), None, PATIENCE, Duration::from_millis(200));
        let upstream = Upstream { shared: Arc::new(shared) };
        use_once(&upstream, &identity("alice")).await;
        // nothing else closes it
        scripted.finish(1).await;
        drop(upstream);
    }

    #[tokio::test]
    async fn many_at_once_never_exceed_the_maximum() {
        const MAX: usize = 3;
        const SESSIONS: usize = 60;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let open = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let most = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let server = tokio::spawn({
            let (open, most) = (Arc::clone(&open), Arc::clone(&most));
            async move {
                use std::sync::atomic::Ordering::SeqCst;
                use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (open, most) = (Arc::clone(&open), Arc::clone(&most));
                    tokio::spawn(async move {
                        most.fetch_max(open.fetch_add(1, SeqCst) + 1, SeqCst);
                        let mut stream = BufReader::new(stream);
                        stream.write_all(b"220 mail\r\n").await.unwrap();
                        let mut line = String::new();
                        while stream.read_line(&mut line).await.unwrap_or(0) > 0 {
                            if line.starts_with("QUIT") {
                                break;
                            }
                            let reply = if line.starts_with("EHLO") {
                                "250-mail\r\n250 XCLIENT LOGIN\r\n"
                            } else if line.starts_with("XCLIENT") {
                                "220 mail\r\n"
                            } else {
                                "250 2.1.0 ok\r\n"
                            };
                            line.clear();
                            if stream.write_all(reply.as_bytes()).await.is_err() {
                                break;
                            }
                        }
                        open.fetch_sub(1, SeqCst);
                    });
                }
            }
        });
        let upstream = Upstream::new(Settings { max_connections: MAX, ..settings(address) }, None);
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|number| {
                let upstream = upstream.clone();
                tokio::spawn(async move {
                    let identity = identity(&format!("user{number}"));
                    for _ in 0..5 {
                        use_once(&upstream, &identity).await;
                        tokio::task::yield_now().await;
                    }
                    upstream.end_session(identity.session);
                })
            })
            .collect();
        for session in sessions {
            timeout(DEADLINE, session).await.unwrap().unwrap();
        }
        server.abort();
        // The upstream may see the end of one after the beginning of the next.
        let most = most.load(std::sync::atomic::Ordering::SeqCst);
        assert!((1..=2 * MAX).contains(&most), "{most}");
    }
}

mod tls {
    use super::*;
    use crate::net::tls::{client_config, server_config};

    const BEFORE: &str = "> 220 mail\n< EHLO gatepost.test\n> 250-mail\n> 250 STARTTLS\n< STARTTLS\n";

    async fn run(script: &str, protection: Protection, name: &str) -> (String, String) {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("a.crt"), folder.path().join("a.key"));
        let pair = rcgen::generate_simple_self_signed(["mail.example.org".to_owned()]).unwrap();
        std::fs::write(&certificate, pair.cert.pem()).unwrap();
        std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
        let server = server_config(&certificate, &key).unwrap();
        let client = client_config(Some(&certificate)).unwrap();
        let scripted = Scripted::start_with_tls(&[script], Some(server)).await;
        let settings = Settings { protection, tls_name: name.to_owned(), ..settings(scripted.address) };
        let upstream = Upstream::new(settings, Some(client));
        let mut transaction = upstream.transaction(identity("alice"));
        let told = ask_one(&mut transaction, MAIL).await;
        drop(transaction);
        upstream.close().await;
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
}
