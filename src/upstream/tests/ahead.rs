//! DATA that goes out in one batch with the questions in front of it.

use super::*;

/// Script: MAIL, these recipients and DATA come in one segment.
fn batch(names: &[&str]) -> String {
    let mut lines = vec![MAIL.to_owned()];
    lines.extend(names.iter().map(|name| rcpt(name)));
    lines.push("DATA".to_owned());
    format!("{READY}< {}\n", lines.join("\n<+ "))
}

/// Script: MAIL and these recipients are repeated, all accepted, and then DATA.
fn repeated(names: &[&str]) -> String {
    let names: Vec<_> = names.iter().map(|name| rcpt(name)).collect();
    let accepted = "> 250 2.1.5 ok\n".repeat(names.len());
    format!("{READY}< {MAIL}\n<+ {}\n> 250 2.1.0 ok\n{accepted}< DATA\n> 354 go\n", names.join("\n<+ "))
}

const CONTENT: &str = "< x\n<+ .\n> 250 2.0.0 queued\n";
const ACCEPTED: &str = "> 250 2.1.0 ok\n> 250 2.1.5 ok\n";

/// Asks in one batch, with DATA behind it.
async fn ask_with_data(transaction: &mut Transaction, names: &[&str]) -> Vec<String> {
    transaction.ask(question(MAIL));
    for name in names {
        transaction.ask(question(&rcpt(name)));
    }
    transaction.data_follows();
    ask(transaction, &[]).await
}

async fn deliver(transaction: &mut Transaction) -> String {
    if let Err(stop) = timeout(DEADLINE, transaction.begin_data()).await.unwrap() {
        return format!("{stop:?}");
    }
    transaction.write_data(&mut b"x\r\n".to_vec()).await.unwrap();
    timeout(DEADLINE, transaction.finish_data(b".\r\n")).await.unwrap().unwrap().to_string()
}

#[tokio::test]
async fn it_saves_a_round_trip() {
    let next = format!("< {MAIL}\n<+ {}\n<+ DATA\n{ACCEPTED}> 354 go\n{CONTENT}< QUIT", rcpt("r2"));
    for reply in ["> 354 go\n", "pause 50\n> 354 go\n", "drip\n> 354-go\n> 354 on\n"] {
        let script = format!("{}{ACCEPTED}{reply}{CONTENT}{next}", batch(&["r1"]));
        let scripted = Scripted::start(&[&script]).await;
        let upstream = upstream(scripted.address);
        let connections = upstream.session(identity("alice").session);
        for name in ["r1", "r2"] {
            let mut transaction = upstream.transaction(identity("alice"));
            let answers = ask_with_data(&mut transaction, &[name]).await;
            assert_eq!(answers, ["250 2.1.0 ok", "250 2.1.5 ok"]);
            assert!(!transaction.is_in_content(), "its reply has not been looked at");
            assert_eq!(deliver(&mut transaction).await, "250 2.0.0 queued");
        }
        drop(connections);
        upstream.close();
        scripted.finish(1).await;
    }
}

/// It takes nothing away from the refusals that an upstream bears, and needs PIPELINING.
#[tokio::test]
async fn it_waits_after_a_refusal_and_without_pipelining() {
    let again = "> 250 2.1.0 ok\n> 550 5.1.1 no\n> 250 2.1.5 ok\n";
    let refused = format!(
        "{}{again}> 354 go\n{CONTENT}< {MAIL}\n<+ {}\n{ACCEPTED}< DATA\n> 354 go\n{CONTENT}< QUIT",
        batch(&["r1", "r2"]),
        rcpt("r3")
    );
    let plain = format!(
        "{READY_PLAIN}< {MAIL}\n> 250 2.1.0 ok\n< {}\n> 250 2.1.5 ok\n< {}\n> 250 2.1.5 ok\n< DATA\n> 354 go\n{CONTENT}",
        rcpt("r1"),
        rcpt("r2")
    );
    for (script, transactions) in [(refused, 2), (plain, 1)] {
        let scripted = Scripted::start(&[&script]).await;
        let upstream = upstream(scripted.address);
        let connections = upstream.session(identity("alice").session);
        for names in [&["r1", "r2"][..], &["r3"]].iter().take(transactions) {
            let mut transaction = upstream.transaction(identity("alice"));
            ask_with_data(&mut transaction, names).await;
            assert_eq!(deliver(&mut transaction).await, "250 2.0.0 queued");
        }
        drop(connections);
        upstream.close();
        scripted.finish(1).await;
    }
}

/// Whatever is said behind DATA might become content: the connection is cut, without QUIT or RSET.
#[tokio::test]
async fn nothing_is_said_behind_it() {
    for reply in ["> 354 go\n", "", "> 354 go\n> 421 4.4.2 too slow\nclose"] {
        for how in ["abandoned", "rest", "a further question"] {
            let first = format!("{}{ACCEPTED}{reply}", batch(&["r1"]));
            let second = format!("{}{CONTENT}", repeated(&["r1"]));
            let asked = second.replace("< DATA", &format!("< {}\n> 250 2.1.5 ok\n< DATA", rcpt("r2")));
            let scripts = [first.as_str(), if how == "rest" { &second } else { &asked }];
            let connections = if how == "abandoned" { 1 } else { 2 };
            let scripted = Scripted::start(&scripts[..connections]).await;
            let upstream = upstream(scripted.address);
            let mut transaction = upstream.transaction(identity("alice"));
            ask_with_data(&mut transaction, &["r1"]).await;
            sleep(Duration::from_millis(20)).await;
            match how {
                "rest" => transaction.rest(),
                "abandoned" => {}
                _ => assert_eq!(ask_one(&mut transaction, &rcpt("r2")).await, "250 2.1.5 ok"),
            }
            assert!(!transaction.is_in_doubt(), "a 421 may come at any time");
            if how != "abandoned" {
                assert_eq!(deliver(&mut transaction).await, "250 2.0.0 queued");
            }
            drop(transaction);
            upstream.close();
            let heard = scripted.finish(connections).await;
            assert!(heard[0].ends_with("DATA\r\n"), "{how}: {}", heard[0]);
        }
    }
}

/// Recipients that are all refused leave nothing for DATA to begin.
#[tokio::test]
async fn after_refused_recipients() {
    let refused = "> 250 2.1.0 ok\n> 550 5.1.1 no\n";
    // It is refused as well: the connection is as good as before.
    let more = format!("< {}\n> 250 2.1.5 ok\n< DATA\n> 354 go\n{CONTENT}", rcpt("r2"));
    let kept = format!("{}{refused}> 554 5.5.1 no valid recipients\n{more}", batch(&["r1"]));
    // RFC 2920 3.1: some answer 354 all the same.
    let cut = format!("{}{refused}> 354 go\n", batch(&["r1"]));
    let fresh = format!("{READY}< {MAIL}\n> 250 2.1.0 ok\n{more}");
    for scripts in [vec![kept.as_str()], vec![&cut, &fresh]] {
        let scripted = Scripted::start(&scripts).await;
        let upstream = upstream(scripted.address);
        let mut transaction = upstream.transaction(identity("alice"));
        assert_eq!(ask_with_data(&mut transaction, &["r1"]).await, ["250 2.1.0 ok", "550 5.1.1 no"]);
        assert_eq!(ask_one(&mut transaction, &rcpt("r2")).await, "250 2.1.5 ok");
        assert_eq!(deliver(&mut transaction).await, "250 2.0.0 queued");
        drop(transaction);
        upstream.close();
        scripted.finish(scripts.len()).await;
    }
    // RSET instead of another recipient.
    let reset =
        format!("{}{refused}> 554 5.5.1 no valid recipients\n< RSET\n> 250 ok\n< QUIT", batch(&["r1"]));
    let scripted = Scripted::start(&[&reset]).await;
    let upstream = upstream(scripted.address);
    let mut transaction = upstream.transaction(identity("alice"));
    ask_with_data(&mut transaction, &["r1"]).await;
    transaction.abandon();
    upstream.close();
    scripted.finish(1).await;
}

/// Until the upstream has closed as well it counts the connection: the next one waits for that.
#[tokio::test]
async fn its_place_becomes_free_when_the_upstream_has_closed() {
    const SLOW: Duration = Duration::from_millis(300);
    let first = format!("{}{ACCEPTED}> 354 go\npause 300\n", batch(&["r1"]));
    let second = repeated(&["r1"]).replace("< DATA", &format!("< {}\n> 250 2.1.5 ok\n< DATA", rcpt("r2")));
    let scripted = Scripted::start(&[&first, &format!("{second}{CONTENT}")]).await;
    let upstream = Upstream::open(Settings { max_connections: 1, ..settings(scripted.address) }).unwrap();
    let mut transaction = upstream.transaction(identity("alice"));
    ask_with_data(&mut transaction, &["r1"]).await;
    let asked = Instant::now();
    assert_eq!(ask_one(&mut transaction, &rcpt("r2")).await, "250 2.1.5 ok");
    assert!(asked.elapsed() > SLOW / 2, "{:?}", asked.elapsed());
    assert_eq!(deliver(&mut transaction).await, "250 2.0.0 queued");
    drop(transaction);
    upstream.close();
    scripted.finish(2).await;
}

/// The refusal holds though the upstream hangs up behind it. In case it was another command's, and 354 follows, nothing more is said.
#[tokio::test]
async fn it_is_refused() {
    for end in ["", "close", "> 421 4.3.2 bye\nclose", "pause 200\n> 354 go\n"] {
        let script = format!("{}{ACCEPTED}> 550 5.7.1 no\n{end}", batch(&["r1"]));
        let scripted = Scripted::start(&[&script]).await;
        let upstream = upstream(scripted.address);
        let mut transaction = upstream.transaction(identity("alice"));
        ask_with_data(&mut transaction, &["r1"]).await;
        sleep(Duration::from_millis(50)).await;
        let refusal = transaction.begin_data().await.unwrap_err();
        assert!(
            matches!(&refusal, Stopped::Refused(reply) if reply.to_string() == "550 5.7.1 no"),
            "{refusal:?}"
        );
        drop(transaction);
        upstream.close();
        let heard = scripted.finish(1).await.remove(0);
        assert!(heard.ends_with("DATA\r\n"), "{heard}");
    }
}

/// An upstream that hangs up at any moment before the content is replaced, though its 354 may be here already.
#[tokio::test]
async fn the_connection_is_lost() {
    for end in
        ["close", "> 421 4.3.2 restarting\nclose", "> 354 go\nclose", "> 354 go\n> 421 4.4.2 too slow\nclose"]
    {
        let first = format!("{}{ACCEPTED}{end}", batch(&["r1"]));
        let second = format!("{}{CONTENT}", repeated(&["r1"]));
        let scripted = Scripted::start(&[&first, &second]).await;
        let upstream = upstream(scripted.address);
        let mut transaction = upstream.transaction(identity("alice"));
        assert_eq!(ask_with_data(&mut transaction, &["r1"]).await, ["250 2.1.0 ok", "250 2.1.5 ok"], "{end}");
        // The client takes its time.
        sleep(Duration::from_millis(100)).await;
        assert_eq!(deliver(&mut transaction).await, "250 2.0.0 queued", "{end}");
        drop(transaction);
        upstream.close();
        scripted.finish(2).await;
    }
    // In the middle of the batch.
    let first = format!("{}> 250 2.1.0 ok\n> 250 2.1.5 ok\nclose", batch(&["r1", "r2"]));
    let second = format!(
        "{READY}< {MAIL}\n<+ {}\n{ACCEPTED}< {}\n> 250 2.1.5 ok\n< DATA\n> 354 go\n{CONTENT}",
        rcpt("r1"),
        rcpt("r2")
    );
    let scripted = Scripted::start(&[&first, &second]).await;
    let upstream = upstream(scripted.address);
    let mut transaction = upstream.transaction(identity("alice"));
    ask_with_data(&mut transaction, &["r1", "r2"]).await;
    assert_eq!(deliver(&mut transaction).await, "250 2.0.0 queued");
    drop(transaction);
    upstream.close();
    scripted.finish(2).await;
}

/// More replies than questions are found out with DATA among them too, and nothing is relayed.
#[tokio::test]
async fn a_reply_too_many() {
    for replies in [
        "> 250 2.1.0 ok\n> 250 2.1.5 ok\n> 250 2.1.5 ok\n> 354 go\n",
        "> 250 2.1.0 ok\n> 250 2.1.5 ok\npause 50\n> 250 2.1.5 ok\n> 354 go\n",
    ] {
        let first = format!("{}{replies}", batch(&["r1"]));
        let scripted = Scripted::start(&[&first, READY]).await;
        let upstream = upstream(scripted.address);
        let mut transaction = upstream.transaction(identity("alice"));
        ask_with_data(&mut transaction, &["r1"]).await;
        let told = deliver(&mut transaction).await;
        assert!(told.starts_with("Fault("), "{told}");
        drop(transaction);
        upstream.close();
        let heard = scripted.playing().await;
        assert!(heard.ends_with("DATA\r\n"), "{heard}");
    }
}

/// The same when the client takes its time, and its transaction is to go on over another connection.
#[tokio::test]
async fn a_reply_too_many_at_rest() {
    for replies in ["> 250 2.1.5 ok\n> 354 go\n", "> 354 go\n> 250 2.1.5 ok\n", "> 550 5.1.1 no\n> 354 go\n"]
    {
        let script = format!("{}{ACCEPTED}pause 50\n{replies}", batch(&["r1"]));
        let scripted = Scripted::start(&[&script]).await;
        let upstream = upstream(scripted.address);
        let mut transaction = upstream.transaction(identity("alice"));
        assert_eq!(ask_with_data(&mut transaction, &["r1"]).await, ["250 2.1.0 ok", "250 2.1.5 ok"]);
        sleep(Duration::from_millis(150)).await;
        transaction.rest();
        assert!(transaction.is_in_doubt(), "{replies}");
        assert!(deliver(&mut transaction).await.starts_with("Fault("));
        drop(transaction);
        upstream.close();
        scripted.finish(1).await;
    }
}

/// A connection that has refused enough is left in silence.
#[tokio::test]
async fn a_worn_connection() {
    let names: Vec<String> = (1..=12).map(|number| format!("x{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let first = format!("{}> 250 2.1.0 ok\n{}", batch(&names), "> 550 5.1.1 no\n".repeat(8));
    let rest: Vec<String> = names[8..].iter().map(|name| rcpt(name)).collect();
    let second = format!(
        "{READY}< {MAIL}\n> 250 2.1.0 ok\n< {}\n{}",
        rest.join("\n<+ "),
        "> 550 5.1.1 no\n".repeat(4)
    );
    let scripted = Scripted::start(&[&first, &second]).await;
    let upstream = upstream(scripted.address);
    let mut transaction = upstream.transaction(identity("thief"));
    let answers = ask_with_data(&mut transaction, &names).await;
    assert!(answers[1..].iter().all(|answer| answer == "550 5.1.1 no") && answers.len() == 13, "{answers:?}");
    drop(transaction);
    upstream.close();
    let heard = scripted.finish(2).await;
    assert!(heard[0].ends_with("DATA\r\n"), "{}", heard[0]);
    assert!(!heard[1].contains("DATA"), "{}", heard[1]);
}
