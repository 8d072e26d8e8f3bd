//! The connection that is made ready for a session before its first MAIL.

use super::connections::{mail, ready_with_xclient, use_once};
use super::*;

const SILENT: &str = "";
const GREETS: &str =
    "> 220 mail ESMTP\n< EHLO gatepost.test\n> 250-mail\n> 250-PIPELINING\n> 250 XCLIENT ADDR LOGIN\n";
const REFUSES: &str = "pause 200\n> 554 5.7.1 go away\nclose";

/// Returns an upstream that has told one session what it offers, with at most this many connections.
async fn known(scripted: &Scripted, max_connections: usize) -> Upstream {
    let upstream = Upstream::open(Settings { max_connections, ..settings(scripted.address) }).unwrap();
    let first = identity("first");
    use_once(&upstream, &first).await;
    upstream.end_session(first.session);
    upstream
}

fn first() -> String {
    format!("{}{}< RSET\n> 250 ok\n< QUIT", ready_with_xclient("first"), mail())
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let holds = async {
        while !holds() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, holds).await.expect(what);
}

async fn until_ready(upstream: &Upstream) {
    until("a connection made ready", || upstream.shared.pool.idle_for_sessions() == 1).await;
}

/// Begins to make a connection ready once the only place is free.
async fn prepared_in_place_of_first(upstream: &Upstream, client: &Arc<ClientIdentity>) -> SessionConnections {
    let mut connections = upstream.session(client.session);
    until("the place of the first", || {
        connections.prepare(client);
        upstream.shared.pool.being_made() == 1
    })
    .await;
    connections
}

async fn ask_mail(connections: &mut SessionConnections, identity: &Arc<ClientIdentity>) -> String {
    ask_one(&mut connections.transaction(Arc::clone(identity)), MAIL).await
}

#[tokio::test]
async fn a_session_finds_it_ready_or_on_its_way() {
    let alice = ready_with_xclient("alice") + &mail() + "< RSET\n> 250 ok\n" + &mail();
    for (delay, is_ready) in [("", true), ("pause 300\n", false)] {
        let scripted = Scripted::start(&[&first(), &format!("{delay}{alice}")]).await;
        let (upstream, alice) = (known(&scripted, 10).await, identity("alice"));
        let mut connections = upstream.session(alice.session);
        connections.prepare(&alice);
        if is_ready {
            until_ready(&upstream).await;
        }
        for _ in 0..2 {
            assert_eq!(ask_mail(&mut connections, &alice).await, "250 2.1.0 ok");
        }
        upstream.close();
        scripted.finish(2).await;
    }
}

/// There is no second attempt within the command (CONTRACT), but one if the client asks later.
#[tokio::test]
async fn one_that_fails_is_the_answer_to_a_mail_that_waits_for_it() {
    let alice = ready_with_xclient("alice") + &mail();
    for (is_over, expected, connections) in [(false, "Unavailable", 2), (true, "250 2.1.0 ok", 3)] {
        let scripted = Scripted::start(&[&first(), REFUSES, &alice][..connections]).await;
        let (upstream, alice) = (known(&scripted, 10).await, identity("alice"));
        let mut session = upstream.session(alice.session);
        session.prepare(&alice);
        if is_over {
            until("a refusal", || upstream.shared.pool.being_made() == 0).await;
            session.prepare(&alice);
            assert_eq!(upstream.shared.pool.being_made(), 0, "the upstream is left in peace");
        }
        assert_eq!(ask_mail(&mut session, &alice).await, expected);
        upstream.close();
        scripted.finish(connections).await;
    }
}

/// A refusal of this one client is no reason to make none for others.
#[tokio::test]
async fn one_that_is_refused_stops_no_other() {
    let refuses = format!("{GREETS}< XCLIENT ADDR=192.0.2.7 LOGIN=alice\n> 550 5.7.0 no\n< QUIT");
    let scripted = Scripted::start(&[&first(), &refuses, &ready_with_xclient("bob")]).await;
    let (upstream, alice, bob) = (known(&scripted, 10).await, identity("alice"), identity("bob"));
    let mut connections = upstream.session(alice.session);
    connections.prepare(&alice);
    until("a refusal", || upstream.shared.pool.being_made() == 0).await;
    let mut connections = upstream.session(bob.session);
    connections.prepare(&bob);
    until_ready(&upstream).await;
    upstream.close();
    scripted.finish(3).await;
}

/// Another EHLO behind the login names the client otherwise.
#[tokio::test]
async fn one_that_named_the_client_otherwise_is_of_no_use() {
    let alice = ready_with_xclient("alice");
    for (script, is_ready) in [(SILENT, false), (&*format!("{alice}< QUIT"), true)] {
        let scripted = Scripted::start(&[&first(), script, &format!("{alice}{}", mail())]).await;
        let (upstream, alice) = (known(&scripted, 10).await, identity("alice"));
        let mut connections = upstream.session(alice.session);
        connections.prepare(&alice);
        until("a connection", || scripted.accepted() >= 2).await;
        if is_ready {
            until_ready(&upstream).await;
            // Its place among those greeted ahead has been taken.
            until("one more", || upstream.shared.pool.ready() == 1).await;
        }
        let renamed =
            Arc::new(ClientIdentity { helo: Some("other".to_owned()), ..ClientIdentity::clone(&alice) });
        assert_eq!(ask_mail(&mut connections, &renamed).await, "250 2.1.0 ok");
        assert_eq!(upstream.shared.pool.idle_for_sessions(), 1);
        drop(connections);
        upstream.close();
        scripted.finish(3).await;
    }
}

/// As on any connection that was not idle between transactions: there the client's words may be the cause.
#[tokio::test]
async fn a_hang_up_at_its_first_mail_is_an_answer() {
    let hangs_up = format!("{}< {MAIL}\n> 421 4.7.0 no\nclose", ready_with_xclient("alice"));
    let scripted = Scripted::start(&[&first(), &hangs_up, GREETS]).await;
    let (upstream, alice) = (known(&scripted, 10).await, identity("alice"));
    let mut connections = upstream.session(alice.session);
    connections.prepare(&alice);
    until_ready(&upstream).await;
    until("one greeted ahead", || upstream.shared.pool.ready() == 1).await;
    assert_eq!(ask_mail(&mut connections, &alice).await, "Unavailable");
    upstream.close();
    let heard = scripted.finish(3).await;
    assert!(!heard[2].contains("XCLIENT"), "{heard:?}");
}

#[tokio::test]
async fn a_wait_for_it_can_be_cut_off() {
    let alice = ready_with_xclient("alice") + &mail();
    let scripted = Scripted::start(&[&first(), SILENT, &alice]).await;
    let (upstream, alice) = (known(&scripted, 10).await, identity("alice"));
    let mut connections = upstream.session(alice.session);
    connections.prepare(&alice);
    until("a connection", || scripted.accepted() >= 2).await;
    let mut transaction = connections.transaction(alice);
    transaction.ask(question(MAIL));
    assert!(timeout(Duration::from_millis(50), transaction.answer()).await.is_err());
    assert_eq!(answer(&mut transaction).await, "250 2.1.0 ok");
    drop(transaction);
    upstream.close();
    scripted.finish(3).await;
}

#[tokio::test]
async fn one_greeted_ahead_is_taken_for_it() {
    let second = format!("{}{}< RSET\n> 250 ok\n< QUIT", ready_with_xclient("second"), mail());
    let scripted = Scripted::start(&[&first(), &second, &ready_with_xclient("alice")]).await;
    let (upstream, second, alice) = (known(&scripted, 10).await, identity("second"), identity("alice"));
    use_once(&upstream, &second).await;
    upstream.end_session(second.session);
    until("one greeted ahead", || upstream.shared.pool.ready() == 1).await;
    let mut connections = upstream.session(alice.session);
    connections.prepare(&alice);
    until_ready(&upstream).await;
    upstream.close();
    scripted.finish(3).await;
}

/// Those that have logged in and are silent: sixteen of them hold a connection.
#[tokio::test]
async fn not_every_silent_session_has_one() {
    let alice = ready_with_xclient("alice");
    let mut scripts = vec![first()];
    scripts.resize(30, alice);
    let scripts: Vec<&str> = scripts.iter().map(String::as_str).collect();
    let scripted = Scripted::start(&scripts).await;
    let upstream = known(&scripted, 100).await;
    let mut sessions = Vec::new();
    for held in 1..=17 {
        let alice = identity("alice");
        let mut connections = upstream.session(alice.session);
        connections.prepare(&alice);
        sessions.push(connections);
        if held <= 16 {
            until("a connection made ready", || upstream.shared.pool.idle_for_sessions() == held).await;
        }
    }
    assert_eq!(upstream.shared.pool.being_made(), 0);
}

#[tokio::test]
async fn whoever_waits_gets_its_place() {
    let carol = ready_with_xclient("carol") + &mail();
    let bob = ready_with_xclient("bob");
    for (script, is_ready) in [(SILENT, false), (&*format!("{bob}< QUIT"), true)] {
        let scripted = Scripted::start(&[&first(), script, &carol]).await;
        let (upstream, bob) = (known(&scripted, 1).await, identity("bob"));
        let _connections = prepared_in_place_of_first(&upstream, &bob).await;
        until("a connection", || scripted.accepted() >= 2).await;
        if is_ready {
            until_ready(&upstream).await;
        }
        let begun = Instant::now();
        use_once(&upstream, &identity("carol")).await;
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        upstream.close();
        scripted.finish(3).await;
    }
}

/// Unless its client waits as well, who came first.
#[tokio::test]
async fn whoever_waits_for_it_keeps_its_place() {
    let bob = format!("pause 300\n{}{}< RSET\n> 250 ok\n< QUIT", ready_with_xclient("bob"), mail());
    let carol = ready_with_xclient("carol") + &mail();
    let scripted = Scripted::start(&[&first(), &bob, &carol]).await;
    let (upstream, bob) = (known(&scripted, 1).await, identity("bob"));
    let mut connections = prepared_in_place_of_first(&upstream, &bob).await;
    let later = async {
        sleep(Duration::from_millis(50)).await;
        use_once(&upstream, &identity("carol")).await;
    };
    let (replied, ()) = tokio::join!(ask_mail(&mut connections, &bob), later);
    assert_eq!(replied, "250 2.1.0 ok");
    upstream.close();
    scripted.finish(3).await;
}

/// Whether the session ends, the account is blocked, or the service stops; also if the connection is ready by then.
#[tokio::test]
async fn one_that_nobody_needs_any_more_is_closed() {
    type End = fn(&Upstream, &ClientIdentity, SessionConnections) -> Option<SessionConnections>;
    let ends: [End; 3] = [
        |_, _, _| None,
        |upstream, alice, connections| {
            upstream.end_account(&alice.account());
            Some(connections)
        },
        |upstream, _, connections| {
            upstream.close();
            Some(connections)
        },
    ];
    for end in ends {
        for (script, is_ready) in [(SILENT, false), (&*(ready_with_xclient("alice") + "< QUIT"), true)] {
            let scripted = Scripted::start(&[&first(), script]).await;
            let (upstream, alice) = (known(&scripted, 10).await, identity("alice"));
            let mut connections = upstream.session(alice.session);
            connections.prepare(&alice);
            until("a connection", || scripted.accepted() >= 2).await;
            if is_ready {
                until_ready(&upstream).await;
            }
            let session = end(&upstream, &alice, connections);
            // Both scripts end with the connection.
            scripted.finish(2).await;
            assert_eq!(upstream.shared.pool.idle_for_sessions(), 0);
            drop(session);
        }
    }
}

#[tokio::test]
async fn where_connections_serve_anybody_none_is_made_for_one_session() {
    for (offer, xclient) in [("", true), ("> 250-XCLIENT ADDR LOGIN\n", false)] {
        let hello = format!("> 220 mail ESMTP\n< EHLO gatepost.test\n> 250-mail\n{offer}> 250 PIPELINING\n");
        let scripted = Scripted::start(&[&format!("{hello}{}", mail())]).await;
        let upstream = Upstream::open(Settings { xclient, ..settings(scripted.address) }).unwrap();
        let alice = identity("alice");
        // Before anything is known of the upstream, and after.
        for _ in 0..2 {
            let mut connections = upstream.session(alice.session);
            connections.prepare(&alice);
            assert_eq!(upstream.shared.pool.being_made(), 0);
            if upstream.offers().is_none() {
                assert_eq!(ask_mail(&mut connections, &alice).await, "250 2.1.0 ok");
            }
        }
        upstream.close();
        scripted.finish(1).await;
    }
}
