//! Several upstreams, Unix sockets, and connections given back in mid-transaction.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::connections::{mail, ready_with_xclient};
use super::*;

fn several(addresses: &[SocketAddr]) -> Settings {
    let endpoints = addresses.iter().map(|address| endpoint(*address)).collect();
    Settings { endpoints, ..settings(addresses[0]) }
}

/// Script: one transaction that is given up.
fn once(offer: &str) -> String {
    format!(
        "> 220 mail ESMTP\n< EHLO gatepost.test\n> 250-mail\n{offer}> 250 PIPELINING\n< {MAIL}\n> 250 2.1.0 ok\n< RSET\n> 250 ok\n< QUIT"
    )
}

async fn use_once(upstream: &Upstream) {
    let mut transaction = upstream.transaction(identity("alice"));
    assert_eq!(ask_one(&mut transaction, MAIL).await, "250 2.1.0 ok");
    drop(transaction);
    // Forces the next transaction to connect.
    upstream.shared.pool.close_idle(|_| true);
}

#[tokio::test]
async fn they_take_turns() {
    let one = Scripted::start(&[&once(""), &once("")]).await;
    let other = Scripted::start(&[&once("")]).await;
    let upstream = Upstream::open(several(&[one.address, other.address])).unwrap();
    for _ in 0..3 {
        use_once(&upstream).await;
    }
    one.finish(2).await;
    other.finish(1).await;
}

/// At XCLIENT as at MAIL: the client goes on to another upstream, and a second client's end leaves it out.
#[tokio::test]
async fn one_that_fails_at_xclient_turns_that_client_away() {
    for end in ["close", "> 421 4.3.2 no\nclose", ""] {
        let greets = "> 220 mail ESMTP\n< EHLO gatepost.test\n> 250-mail\n> 250 XCLIENT ADDR LOGIN\n";
        let fails = |login: &str| format!("{greets}< XCLIENT ADDR=192.0.2.7 LOGIN={login}\n{end}");
        let takes = |login: &str| format!("{}{}< RSET\n> 250 ok\n< QUIT", ready_with_xclient(login), mail());
        let one = Scripted::start(&[&fails("alice"), &fails("carol")]).await;
        let clients = ["alice", "bob", "carol", "dave"];
        let scripts = clients.map(takes);
        let other = Scripted::start(&scripts.each_ref().map(String::as_str)).await;
        // None is greeted ahead.
        let brief = Duration::from_secs(1);
        let settings =
            Settings { max_connections: 1, connect_timeout: brief, ..several(&[one.address, other.address]) };
        let upstream = Upstream::open(settings).unwrap();
        for client in clients {
            let client = identity(client);
            connections::use_once(&upstream, &client).await;
            upstream.end_session(client.session);
        }
        one.finish(2).await;
        other.finish(4).await;
    }
}

/// Script: this many transactions on one connection, each given up.
fn reused(times: usize) -> String {
    format!("{READY}{}< QUIT", format!("< {MAIL}\n> 250 2.1.0 ok\n< RSET\n> 250 ok\n").repeat(times))
}

/// As [`use_once`], but keeps the connection.
async fn use_and_keep(upstream: &Upstream) {
    let mut transaction = upstream.transaction(identity("alice"));
    assert_eq!(ask_one(&mut transaction, MAIL).await, "250 2.1.0 ok");
}

#[tokio::test]
async fn they_take_turns_where_connections_are_reused() {
    let (one, other) = (Scripted::start(&[&reused(3)]).await, Scripted::start(&[&reused(2)]).await);
    let upstream = Upstream::open(several(&[one.address, other.address])).unwrap();
    for _ in 0..5 {
        use_and_keep(&upstream).await;
    }
    upstream.close();
    one.finish(1).await;
    other.finish(1).await;
}

/// An idle connection to another upstream is better than none, and better than closing it because of the turn.
#[tokio::test]
async fn without_a_place_the_one_that_is_connected_is_asked_out_of_turn() {
    let (one, other) = (Scripted::start(&[&reused(3)]).await, Scripted::start(&[]).await);
    let settings = Settings { max_connections: 1, ..several(&[one.address, other.address]) };
    let upstream = Upstream::open(settings).unwrap();
    for _ in 0..3 {
        use_and_keep(&upstream).await;
    }
    upstream.close();
    one.finish(1).await;
    other.finish(0).await;
}

#[tokio::test]
async fn one_that_fails_once_its_connection_died_is_left_out_too() {
    let dies = format!("{READY}< {MAIL}\n> 250 2.1.0 ok\n< RSET\n> 250 ok\nclose");
    let (one, other) = (
        Scripted::start(&[&dies, "> 554 5.3.2 gone\n"]).await,
        Scripted::start(&[&reused(1), &reused(3)]).await,
    );
    let upstream = Upstream::open(several(&[one.address, other.address])).unwrap();
    for _ in 0..5 {
        use_and_keep(&upstream).await;
    }
    upstream.close();
    one.finish(2).await;
    other.finish(2).await;
}

/// A fresh connection without a reply to MAIL: nothing was promised yet, and the next upstream is asked.
#[tokio::test]
async fn one_that_hangs_up_at_mail_turns_that_transaction_away() {
    for end in ["close", "> 421 4.3.2 closing\n"] {
        let bad = Scripted::start(&[&format!("{READY}< {MAIL}\n{end}"), &reused(1)]).await;
        let good = Scripted::start(&[&reused(2)]).await;
        let upstream = Upstream::open(several(&[bad.address, good.address])).unwrap();
        for _ in 0..3 {
            use_and_keep(&upstream).await;
        }
        upstream.close();
        bad.finish(2).await;
        good.finish(1).await;
    }
}

/// Twice, at MAIL of different clients without an answer in between: a single sender is not the cause.
#[tokio::test]
async fn one_that_hangs_up_at_the_mail_of_two_clients_is_left_out() {
    let hangs_up = format!("{READY}< {MAIL}\n> 421 4.3.2 closing\n");
    // It would work the next time.
    let bad = Scripted::start(&[&hangs_up, &hangs_up, &reused(3)]).await;
    let good = Scripted::start(&[&reused(1), &reused(4)]).await;
    let upstream = Upstream::open(several(&[bad.address, good.address])).unwrap();
    for name in ["alice", "bob", "alice", "bob", "alice"] {
        let mut transaction = upstream.transaction(identity(name));
        assert_eq!(ask_one(&mut transaction, MAIL).await, "250 2.1.0 ok", "{name}");
    }
    upstream.close();
    good.finish(2).await;
}

/// Whatever the turn, unless there is no other.
#[tokio::test]
async fn who_turned_a_transaction_away_is_asked_last() {
    let (one, other) = (Scripted::start(&[READY; 3]).await, Scripted::start(&[READY; 3]).await);
    let upstream = Upstream::open(several(&[one.address, other.address])).unwrap();
    let mut asked = Vec::new();
    for last in [&[0][..], &[0], &[1], &[1], &[0, 1], &[0, 1]] {
        let slot = upstream.shared.pool.place().await.unwrap();
        let connection = upstream.shared.dial(slot, None, last).await;
        asked.extend(connection.map(|connection| connection.endpoint));
    }
    assert_eq!(asked, [1, 1, 0, 0, 0, 1]);
    drop(upstream);
    one.finish(3).await;
    other.finish(3).await;
}

#[tokio::test]
async fn where_all_hang_up_at_mail_each_is_asked_once() {
    let hangs_up = format!("{READY}< {MAIL}\nclose");
    let (one, other) = (Scripted::start(&[&hangs_up, &reused(1)]).await, Scripted::start(&[&hangs_up]).await);
    let upstream = Upstream::open(several(&[one.address, other.address])).unwrap();
    let mut transaction = upstream.transaction(identity("alice"));
    assert_eq!(ask_one(&mut transaction, MAIL).await, "Unavailable");
    other.finish(1).await;
}

/// CONTRACT: silent for `timeout` (no second try within the command). The next command is spared the wait.
#[tokio::test]
async fn one_that_is_silent_at_mail_is_left_out() {
    let silent = Scripted::start(&[&format!("{READY}< {MAIL}\n"), &reused(3)]).await;
    let good = Scripted::start(&[&reused(3)]).await;
    let mut settings = several(&[silent.address, good.address]);
    settings.timeouts.mail = Duration::from_secs(2);
    let upstream = Upstream::open(settings).unwrap();
    let mut transaction = upstream.transaction(identity("alice"));
    assert_eq!(ask_one(&mut transaction, MAIL).await, "Unavailable");
    drop(transaction);
    for _ in 0..3 {
        use_and_keep(&upstream).await;
    }
    upstream.close();
    good.finish(1).await;
}

/// Script: up to one accepted recipient.
fn accepted() -> String {
    format!("{READY}< {MAIL}\n> 250 2.1.0 ok\n< {}\n> 250 2.1.5 ok\n", rcpt("r1"))
}

#[tokio::test]
async fn one_that_is_silent_at_data_is_left_out() {
    let silent = Scripted::start(&[&(accepted() + "< DATA\n"), &reused(3)]).await;
    let good = Scripted::start(&[&reused(3)]).await;
    let mut settings = several(&[silent.address, good.address]);
    settings.timeouts.data = Duration::from_secs(2);
    let upstream = Upstream::open(settings).unwrap();
    let mut transaction = ready_for_data(&upstream).await;
    assert!(matches!(transaction.begin_data().await, Err(Stopped::Fault(Fault::Unavailable(_)))));
    drop(transaction);
    for _ in 0..3 {
        use_and_keep(&upstream).await;
    }
    upstream.close();
    good.finish(1).await;
}

/// At DATA as in the envelope: the replacement is made elsewhere first.
#[tokio::test]
async fn one_that_hangs_up_at_data_is_not_asked_again_at_once() {
    let hangs_up = accepted() + "< DATA\nclose\n";
    let bad = Scripted::start(&[&hangs_up, &hangs_up]).await;
    let good = Scripted::start(&[&(accepted() + "< DATA\n> 354 go on\n")]).await;
    let upstream = Upstream::open(several(&[bad.address, good.address])).unwrap();
    let mut transaction = ready_for_data(&upstream).await;
    // Another session has taken the turn of the good one.
    upstream.shared.endpoints().candidates(Instant::now());
    assert!(matches!(transaction.begin_data().await, Ok(())));
    drop(transaction);
    good.finish(1).await;
}

/// The replacement for a closed connection is made elsewhere first.
#[tokio::test]
async fn one_that_hangs_up_in_mid_transaction_is_not_asked_again_at_once() {
    let hangs_up = format!("{}< {}\nclose\n", accepted(), rcpt("r2"));
    let bad = Scripted::start(&[&hangs_up, &hangs_up]).await;
    let taken = format!("{}< {}\n> 250 2.1.5 ok\n< RSET\n> 250 ok\n< QUIT", accepted(), rcpt("r2"));
    let good = Scripted::start(&[&taken]).await;
    let upstream = Upstream::open(several(&[bad.address, good.address])).unwrap();
    let mut transaction = ready_for_data(&upstream).await;
    // Another session has taken the turn of the good one.
    upstream.shared.endpoints().candidates(Instant::now());
    assert_eq!(ask_one(&mut transaction, &rcpt("r2")).await, "250 2.1.5 ok");
    drop(transaction);
    upstream.close();
    good.finish(1).await;
}

/// Every way of not becoming ready for MAIL; the client notices nothing as long as there is another upstream.
#[tokio::test]
async fn one_that_fails_is_left_out_at_once() {
    for failing in [
        "close",
        "> 554 5.7.1 not you\n",
        "> 421 4.3.2 too many\n",
        "> 220 mail\n< EHLO gatepost.test\n> 421 4.3.0 no\n",
    ] {
        let bad = Scripted::start(&[failing]).await;
        let good = Scripted::start(&[&once(""), &once(""), &once("")]).await;
        let upstream = Upstream::open(several(&[bad.address, good.address])).unwrap();
        for _ in 0..3 {
            use_once(&upstream).await;
        }
        bad.finish(1).await;
        good.finish(3).await;
    }
}

#[tokio::test]
async fn one_that_is_silent_leaves_time_for_the_others() {
    let silent = Scripted::start(&[""]).await;
    let good = Scripted::start(&[&once("")]).await;
    let settings = several(&[silent.address, good.address]);
    let settings = Settings { connect_timeout: Duration::from_millis(600), ..settings };
    let upstream = Upstream::open(settings).unwrap();
    use_once(&upstream).await;
    drop(silent.finish(1).await);
    good.finish(1).await;
}

#[tokio::test]
async fn all_that_fail_are_named_and_the_first_is_tried_again() {
    let (one, other) =
        (Scripted::start(&["> 554 one\n", &once("")]).await, Scripted::start(&["> 554 two\n"]).await);
    let upstream = Upstream::open(several(&[one.address, other.address])).unwrap();
    let mut transaction = upstream.transaction(identity("alice"));
    transaction.ask(question(MAIL));
    let Answer::None(Fault::Unavailable(why)) = transaction.answer().await else { panic!("an answer") };
    for part in
        [one.address.to_string(), "554 one".to_owned(), other.address.to_string(), "554 two".to_owned()]
    {
        assert!(why.contains(&part), "{why}");
    }
    drop(transaction);
    use_once(&upstream).await;
    one.finish(2).await;
    other.finish(1).await;
}

#[tokio::test]
async fn what_all_that_can_be_reached_offer_is_offered() {
    let learn =
        |offer: &str| format!("> 220 mail\n< EHLO gatepost.test\n> 250-mail\n{offer}> 250 DSN\n< QUIT");
    let one = Scripted::start(&[
        &learn("> 250-8BITMIME\n> 250-SMTPUTF8\n> 250-SIZE 2000\n"),
        &learn("> 250-8BITMIME\n> 250-SMTPUTF8\n"),
    ])
    .await;
    let other = Scripted::start(&[&learn("> 250-SIZE 1000\n"), "> 554 no\n"]).await;
    let upstream = Upstream::open(several(&[one.address, other.address])).unwrap();
    assert!(upstream.offers().is_none());
    let contacts = upstream.contact(DEADLINE).await;
    let addresses: Vec<_> = contacts.iter().map(|contact| contact.address.to_string()).collect();
    assert_eq!(addresses, [one.address.to_string(), other.address.to_string()]);
    assert!(contacts.iter().all(|contact| contact.offers.is_ok()), "{contacts:?}");
    let offers = upstream.offers().clone().unwrap();
    assert_eq!((offers.dsn, offers.smtputf8, offers.size), (true, false, Some(Some(1000))));
    // the second is gone: the first alone counts
    let contacts = upstream.contact(DEADLINE).await;
    assert!(contacts[0].offers.is_ok() && contacts[1].offers.is_err(), "{contacts:?}");
    assert!(upstream.offers().as_ref().unwrap().smtputf8);
    one.finish(2).await;
    other.finish(2).await;
}

/// CONTRACT: an extension that is missing at transaction time after all.
#[tokio::test]
async fn a_transaction_that_meets_one_that_offers_less() {
    let more = once("> 250-8BITMIME\n> 250-SMTPUTF8\n").replace(MAIL, "MAIL FROM:<s@a.example> SMTPUTF8");
    let less = "> 220 mail\n< EHLO gatepost.test\n> 250 mail\n< QUIT";
    let (one, other) = (Scripted::start(&[&more]).await, Scripted::start(&[less]).await);
    let upstream = Upstream::open(several(&[one.address, other.address])).unwrap();
    let mut first = upstream.transaction(identity("alice"));
    let mut second = upstream.transaction(identity("bob"));
    assert_eq!(ask_one(&mut first, "MAIL FROM:<s@a.example> SMTPUTF8").await, "250 2.1.0 ok");
    assert_eq!(ask_one(&mut second, "MAIL FROM:<s@a.example> SMTPUTF8").await, "MissingExtension");
    drop((first, second));
    upstream.close();
    one.finish(1).await;
    other.finish(1).await;
}

/// The address behind the name changes from one connection to the next.
#[tokio::test]
async fn a_name_is_resolved_anew_for_each_connection() {
    let (one, other) = (Scripted::start(&[&once("")]).await, Scripted::start(&[&once(""), &once("")]).await);
    let address = Address::Tcp { host: "mail.example.org".to_owned(), port: 25 };
    let endpoints = vec![Endpoint { address, tls_name: String::new() }];
    let mut shared =
        Shared::open(Settings { endpoints, ..settings(one.address) }, PATIENCE, IDLE_LIMIT).unwrap();
    let answers = Mutex::new(VecDeque::from([one.address, other.address, other.address]));
    Arc::get_mut(&mut shared).unwrap().dialer.resolver = Box::new(move |host, port| {
        assert_eq!((host, port), ("mail.example.org", 25));
        let answer = answers.lock().unwrap().pop_front().map(|address| vec![address]);
        Box::pin(std::future::ready(answer.ok_or_else(|| std::io::Error::other("asked too often"))))
    });
    let upstream = Upstream { shared };
    for _ in 0..3 {
        use_once(&upstream).await;
    }
    one.finish(1).await;
    other.finish(2).await;
}

#[tokio::test]
async fn a_socket_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mta");
    let scripted = Scripted::start(&[&once("")]).await;
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let address = scripted.address;
    let carrying = tokio::spawn(async move {
        let (mut outside, _) = listener.accept().await.unwrap();
        let mut inside = tokio::net::TcpStream::connect(address).await.unwrap();
        // Whichever side hangs up first may break it.
        drop(tokio::io::copy_bidirectional(&mut outside, &mut inside).await);
    });
    let endpoint = |path| Endpoint { address: Address::Unix(path), tls_name: String::new() };
    let upstream = Upstream::open(Settings { endpoints: vec![endpoint(path)], ..settings(address) }).unwrap();
    use_once(&upstream).await;
    scripted.finish(1).await;
    timeout(DEADLINE, carrying).await.unwrap().unwrap();
    let nobody = endpoint(folder.path().join("none"));
    let upstream = Upstream::open(Settings { endpoints: vec![nobody], ..settings(address) }).unwrap();
    let fault = upstream.learn(None).await.unwrap_err().to_string();
    assert!(fault.contains("unix:") && fault.contains("none: No such file"), "{fault}");
}

/// CONTRACT, Front: the accepted part is repeated when the client goes on.
#[tokio::test]
async fn a_transaction_that_rests_is_repeated_when_it_goes_on() {
    let (r1, r2, no) = (rcpt("r1"), rcpt("r2"), rcpt("no"));
    let before = format!(
        "{READY}< {MAIL}\n<+ {r1}\n<+ {no}\n> 250 2.1.0 ok\n> 250 2.1.5 one\n> 550 5.1.1 no\n< RSET\n> 250 ok\n"
    );
    let between = format!("< {MAIL}\n> 250 2.1.0 ok\n< RSET\n> 250 ok\n");
    let after = format!(
        "< {MAIL}\n<+ {r1}\n> 250 2.1.0 ok\n> 250 2.1.5 one\n< {r2}\n> 250 2.1.5 two\n< RSET\n> 250 ok\n\
         < {MAIL}\n<+ {r1}\n<+ {r2}\n> 250 2.1.0 ok\n> 250 2.1.5 one\n> 250 2.1.5 two\n\
         < DATA\n> 354 go\n< .\n> 250 2.0.0 queued\n< QUIT"
    );
    let scripted = Scripted::start(&[&format!("{before}{between}{after}")]).await;
    let upstream = Upstream::open(Settings { max_connections: 1, ..settings(scripted.address) }).unwrap();
    let mut transaction = upstream.transaction(identity("alice"));
    let answers = ask(&mut transaction, &[MAIL.to_owned(), r1.clone(), no]).await;
    assert_eq!(answers, ["250 2.1.0 ok", "250 2.1.5 one", "550 5.1.1 no"]);
    transaction.rest();
    transaction.rest();
    // somebody else has the only connection meanwhile
    let mut other = upstream.transaction(identity("bob"));
    assert_eq!(ask_one(&mut other, MAIL).await, "250 2.1.0 ok");
    drop(other);
    assert_eq!(ask_one(&mut transaction, &r2).await, "250 2.1.5 two");
    transaction.rest();
    // from DATA on it keeps the connection
    transaction.begin_data().await.unwrap();
    transaction.rest();
    assert_eq!(transaction.finish_data(b".\r\n").await.unwrap().to_string(), "250 2.0.0 queued");
    drop(transaction);
    upstream.close();
    scripted.finish(1).await;
}

/// It also keeps it while a question is under way.
#[tokio::test]
async fn a_question_is_not_given_up() {
    let scripted = Scripted::start(&[&format!("{READY}< {MAIL}\n> 250 2.1.0 ok\n")]).await;
    let upstream = upstream(scripted.address);
    let mut transaction = upstream.transaction(identity("alice"));
    transaction.ask(question(MAIL));
    transaction.rest();
    assert_eq!(answer(&mut transaction).await, "250 2.1.0 ok");
    drop(transaction);
    upstream.close();
    scripted.finish(1).await;
}

/// RFC 5321 4.5.3.2: each verb has its own time.
#[tokio::test]
async fn timeouts_by_verb() {
    let short = Duration::from_millis(200);
    let r1 = rcpt("r1");
    let envelope = format!("{READY}< {MAIL}\n> 250 2.1.0 ok\n< {r1}\n> 250 2.1.5 one\n");
    #[allow(clippy::type_complexity, reason = "a table")]
    let rows: [(fn(&mut Timeouts) -> &mut Duration, String, usize); 3] = [
        (|timeouts| &mut timeouts.mail, format!("{READY}< {MAIL}\n"), 0),
        (|timeouts| &mut timeouts.rcpt, format!("{READY}< {MAIL}\n> 250 2.1.0 ok\n< {r1}\n"), 1),
        (|timeouts| &mut timeouts.data, format!("{envelope}< DATA\n"), 2),
    ];
    for (verb, script, answered) in rows {
        let scripted = Scripted::start(&[&script]).await;
        let mut settings = settings(scripted.address);
        settings.timeouts = Timeouts::new(DEADLINE, DEADLINE);
        *verb(&mut settings.timeouts) = short;
        let upstream = Upstream::open(settings).unwrap();
        let mut transaction = upstream.transaction(identity("alice"));
        let begun = Instant::now();
        let told = [ask_one(&mut transaction, MAIL).await, ask_one(&mut transaction, &r1).await];
        assert_eq!(told.iter().filter(|told| told.starts_with("250")).count(), answered, "{told:?}");
        if answered == 2 {
            assert!(matches!(transaction.begin_data().await, Err(Stopped::Fault(Fault::Unavailable(_)))));
        }
        assert!(begun.elapsed() >= short && begun.elapsed() < DEADLINE / 2);
        drop(transaction);
        scripted.finish(1).await;
    }
}
