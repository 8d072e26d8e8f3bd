//! Connections lost in mid-transaction: what is repeated, what is asked again, and when the transaction is given up.

use super::*;

fn refused(count: usize) -> String {
    "> 550 5.1.1 unknown\n".repeat(count)
}

fn names(range: std::ops::RangeInclusive<usize>) -> Vec<String> {
    range.map(|number| rcpt(&format!("x{number}"))).collect()
}

/// Script: these lines are heard, in one segment.
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
    transaction.begin_data().await.unwrap();
    assert_eq!(transaction.finish_data(b".\r\n").await.unwrap().to_string(), "250 2.0.0 queued");
    drop(transaction);
    upstream.close();
    scripted.finish(2).await;
}

#[tokio::test]
async fn a_dirty_list_is_asked_eight_at_a_time() {
    // the first batch, before any refusal: the upstream answers eight of them, then ever more slowly
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
    upstream.close();
    scripted.finish(3).await;
}

/// Commands in flight are waited for as long as the upstream keeps its pace: no recipient is asked about twice.
#[tokio::test]
async fn a_batch_is_waited_for() {
    let all = names(1..=12);
    let script = format!(
        "{READY}< {MAIL}\n<+ {}\n> 250 2.1.0 ok\n{}pause 20\n{}pause 20\n{}< QUIT",
        all.join("\n<+ "),
        refused(8),
        refused(2),
        refused(2)
    );
    let scripted = Scripted::start(&[&script]).await;
    let upstream = upstream(scripted.address);
    let mut transaction = upstream.transaction(identity("thief"));
    let lines: Vec<_> = std::iter::once(MAIL.to_owned()).chain(all).collect();
    assert_eq!(ask(&mut transaction, &lines).await.len(), 13);
    drop(transaction);
    upstream.close();
    scripted.finish(1).await;
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
    upstream.close();
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
        upstream.close();
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
    upstream.close();
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
        // a later question tries again
        assert_eq!(ask_one(&mut transaction, &rcpt("r3")).await, "250 2.1.5 ok");
        drop(transaction);
        upstream.close();
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
    let upstream = Upstream::open(impatient(scripted.address, Duration::from_millis(300), DEADLINE)).unwrap();
    let mut transaction = upstream.transaction(identity("alice"));
    let answers = ask(&mut transaction, &[MAIL.to_owned(), r1, r2]).await;
    assert_eq!(answers, ["250 2.1.0 ok", "Silent", "250 2.1.5 two"]);
    drop(transaction);
    upstream.close();
    scripted.finish(2).await;
}

/// The place of a lost connection is not held back from others.
#[tokio::test]
async fn the_place_of_one_that_was_silent_is_given_up_too() {
    let r1 = rcpt("r1");
    let silent = format!("{READY}< {MAIL}\n<+ {r1}\n> 250 2.1.0 ok\n");
    let other = format!("{READY}< {MAIL}\n> 250 2.1.0 ok\n");
    let scripted = Scripted::start(&[&silent, &other]).await;
    let patience = impatient(scripted.address, Duration::from_millis(300), DEADLINE);
    let upstream = Upstream::open(Settings { max_connections: 1, ..patience }).unwrap();
    let mut transaction = upstream.transaction(identity("alice"));
    assert_eq!(ask(&mut transaction, &[MAIL.to_owned(), r1]).await, ["250 2.1.0 ok", "Silent"]);
    transaction.rest();
    let mut other = upstream.transaction(identity("bob"));
    assert_eq!(ask_one(&mut other, MAIL).await, "250 2.1.0 ok");
    drop((transaction, other));
    upstream.close();
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
    let stop = transaction.begin_data().await.unwrap_err();
    assert!(
        matches!(&stop, Stopped::Fault(Fault::NotRepeated(why)) if why.contains("450 4.2.1 busy")),
        "{stop:?}"
    );
    drop(transaction);
    one.close();
    let heard = scripted.finish(2).await;
    assert!(!heard.concat().contains("DATA"));

    // MAIL: nothing can be asked any more; likewise if an extension that it needs is no longer offered
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
        assert!(matches!(transaction.begin_data().await, Err(Stopped::Fault(Fault::NotRepeated(_)))));
        drop(transaction);
        upstream.close();
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
    transaction.begin_data().await.unwrap();
    assert!(transaction.finish_data(b".\r\n").await.is_ok());
    drop(transaction);
    one.close();
    scripted.finish(2).await;
    // and lost again
    let scripted = Scripted::start(&[&first, &second]).await;
    let upstream = upstream(scripted.address);
    let mut transaction = ready_for_data(&upstream).await;
    assert!(matches!(transaction.begin_data().await, Err(Stopped::Fault(Fault::Unavailable(_)))));
    drop(transaction);
    upstream.close();
    scripted.finish(2).await;
}
