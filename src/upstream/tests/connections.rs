//! Whom a connection serves, how many there are, and when they are given up.

use super::*;

pub(super) fn ready_with_xclient(login: &str) -> String {
    format!(
        "> 220 mail ESMTP\n< EHLO gatepost.test\n> 250-mail\n> 250-PIPELINING\n> 250 XCLIENT ADDR LOGIN\n\
         < XCLIENT ADDR=192.0.2.7 LOGIN={login}\n> 220 mail ESMTP\n\
         < EHLO gatepost.test\n> 250-mail\n> 250-DSN\n> 250 PIPELINING\n"
    )
}

/// Script: MAIL is heard and accepted.
pub(super) fn mail() -> String {
    format!("< {MAIL}\n> 250 2.1.0 ok\n")
}

pub(super) async fn use_once(upstream: &Upstream, identity: &Arc<ClientIdentity>) {
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
    // EHLO after XCLIENT is what counts; offers() is what was offered before
    assert!(transaction.extensions().unwrap().dsn);
    assert!(!upstream.offers().as_ref().unwrap().dsn);
    drop(transaction);
    upstream.end_session(alice.session);
    upstream.end_session(bob.session);
    scripted.finish(2).await;
}

/// Postfix with `inet_protocols = ipv4` refuses the address of a client that came over IPv6.
#[tokio::test]
async fn an_address_that_the_upstream_cannot_take_is_left_out_where_there_is_a_user() {
    let offer = "> 220 mail\n< EHLO gatepost.test\n> 250-mail\n> 250 XCLIENT ADDR LOGIN\n";
    let taken = format!(
        "{offer}< XCLIENT ADDR=IPV6:2001:db8::7 LOGIN=alice\n> 501 5.5.4 Bad ADDR syntax\n\
         < XCLIENT ADDR=[UNAVAILABLE] LOGIN=alice\n> 220 mail\n< EHLO gatepost.test\n> 250 mail\n{}",
        mail()
    );
    let relay =
        format!("{offer}< XCLIENT ADDR=IPV6:2001:db8::8 LOGIN=[UNAVAILABLE]\n> 501 5.5.4 Bad ADDR syntax\n");
    let scripted = Scripted::start(&[&taken, &relay]).await;
    let upstream = upstream(scripted.address);
    let address = "[2001:db8::7]:4711".parse().unwrap();
    let alice = Arc::new(ClientIdentity { address, ..ClientIdentity::clone(&identity("alice")) });
    use_once(&upstream, &alice).await;
    let address = "[2001:db8::8]:4711".parse().unwrap();
    let host = Arc::new(ClientIdentity { address, login: None, ..ClientIdentity::clone(&alice) });
    let mut transaction = upstream.transaction(host);
    assert_eq!(ask_one(&mut transaction, MAIL).await, "Unavailable");
    upstream.close();
    scripted.finish(2).await;
}

#[tokio::test]
async fn the_same_session_as_someone_else_gets_a_connection_of_its_own() {
    let before = format!("{}{}< RSET\n> 250 ok\n< QUIT", ready_with_xclient("[UNAVAILABLE]"), mail());
    let after = format!("{}{}< RSET\n> 250 ok\nclose", ready_with_xclient("alice"), mail());
    let scripted = Scripted::start(&[&before, &after]).await;
    let upstream = upstream(scripted.address);
    let authenticated = identity("alice");
    let relay = Arc::new(ClientIdentity { login: None, ..ClientIdentity::clone(&authenticated) });
    use_once(&upstream, &relay).await;
    use_once(&upstream, &authenticated).await;
    // The first is closed although the session goes on: it has had its last transaction.
    let heard = scripted.finish(2).await;
    assert_eq!(heard[0].matches("MAIL").count(), 1, "{heard:?}");
}

/// An upstream counts a connection until it has closed it, and refuses one too many.
#[tokio::test]
async fn a_place_is_free_once_the_upstream_has_closed_as_well() {
    let slow = "< QUIT\npause 200\n> 221 bye\nclose";
    let alice = format!("{}{}< RSET\n> 250 ok\n{slow}", ready_with_xclient("alice"), mail());
    let bob =
        format!("{}{}{slow}", ready_with_xclient("bob"), mail().replace("250 2.1.0 ok", "550 5.7.1 no"));
    let carl = format!("{}{}< RSET\n> 250 ok\n< QUIT", ready_with_xclient("carl"), mail());
    let scripted = Scripted::start(&[&alice, &bob, &carl]).await;
    let upstream = Upstream::open(Settings { max_connections: 1, ..settings(scripted.address) }).unwrap();
    use_once(&upstream, &identity("alice")).await;
    // The one takes the place of an idle connection, the other waits for one that is given back.
    let begun = Instant::now();
    let mut bob = upstream.transaction(identity("bob"));
    assert_eq!(ask_one(&mut bob, MAIL).await, "550 5.7.1 no");
    assert!(begun.elapsed() >= Duration::from_millis(200), "{:?}", begun.elapsed());
    let carl = async {
        use_once(&upstream, &identity("carl")).await;
        begun.elapsed()
    };
    let given_back = async {
        sleep(Duration::from_millis(50)).await;
        drop(bob);
    };
    let (elapsed, ()) = tokio::join!(carl, given_back);
    assert!(elapsed >= Duration::from_millis(400), "{elapsed:?}");
    upstream.close();
    scripted.finish(3).await;
}

#[tokio::test]
async fn without_xclient_a_connection_serves_anybody() {
    let plain = format!("{READY}{}< RSET\n> 250 ok\n{}< RSET\n> 250 ok\n< QUIT", mail(), mail());
    let scripted = Scripted::start(&[&plain]).await;
    let one = upstream(scripted.address);
    use_once(&one, &identity("alice")).await;
    use_once(&one, &identity("bob")).await;
    one.close();
    scripted.finish(1).await;
    // offered, and not wanted
    let unwanted = plain.replace("> 250 PIPELINING", "> 250 XCLIENT ADDR LOGIN");
    let scripted = Scripted::start(&[&unwanted]).await;
    let other = Upstream::open(Settings { xclient: false, ..settings(scripted.address) }).unwrap();
    use_once(&other, &identity("alice")).await;
    use_once(&other, &identity("bob")).await;
    other.close();
    scripted.finish(1).await;
}

#[tokio::test]
async fn silence_at_rset_does_not_hold_up_the_next_transaction() {
    let silent = format!("{READY}{}< RSET\n", mail());
    let fresh = format!("{READY}{}< RSET\n> 250 ok\n< QUIT", mail());
    let scripted = Scripted::start(&[&silent, &fresh]).await;
    let upstream = upstream(scripted.address);
    use_once(&upstream, &identity("alice")).await;
    let begun = Instant::now();
    use_once(&upstream, &identity("alice")).await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    upstream.close();
    scripted.finish(2).await;
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
    for end in
        ["close", "< MAIL FROM:<s@a.example>\nclose", "< MAIL FROM:<s@a.example>\n> 421 4.4.2 idle\nclose"]
    {
        let first = format!("{READY}{}< RSET\n> 250 ok\n{end}", mail());
        let second = format!("{READY}{}", mail());
        let scripted = Scripted::start(&[&first, &second]).await;
        let upstream = upstream(scripted.address);
        let alice = identity("alice");
        use_once(&upstream, &alice).await;
        use_once(&upstream, &alice).await;
        upstream.close();
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
        upstream.close();
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
    let upstream = Upstream { shared: Shared::open(one, patience, IDLE_LIMIT).unwrap() };
    let mut held = upstream.transaction(identity("alice"));
    assert_eq!(ask_one(&mut held, MAIL).await, "250 2.1.0 ok");
    let mut other = upstream.transaction(identity("carol"));
    let begun = Instant::now();
    assert_eq!(ask_one(&mut other, MAIL).await, "Busy");
    assert!(begun.elapsed() >= patience && begun.elapsed() < DEADLINE);
    // one that waits gets it as soon as it is free
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
    let upstream = Upstream::open(Settings { max_connections: 1, ..settings(scripted.address) }).unwrap();
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
    let limit = Duration::from_millis(200);
    let upstream = Upstream { shared: Shared::open(settings(scripted.address), PATIENCE, limit).unwrap() };
    use_once(&upstream, &identity("alice")).await;
    // nothing else closes it
    scripted.finish(1).await;
    drop(upstream);
}

/// Exim hangs up after 1000, and Postfix counts RSETs beyond 100 as errors.
#[tokio::test]
async fn one_is_used_a_hundred_times() {
    let once = format!("{}< RSET\n> 250 ok\n", mail());
    let scripted =
        Scripted::start(&[&format!("{READY}{}< QUIT", once.repeat(100)), &format!("{READY}{once}< QUIT")])
            .await;
    let upstream = upstream(scripted.address);
    for _ in 0..101 {
        use_once(&upstream, &identity("alice")).await;
    }
    upstream.close();
    scripted.finish(2).await;
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
    let upstream = Upstream::open(Settings { max_connections: MAX, ..settings(address) }).unwrap();
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

/// When the task of a session is cut off, by a panic or an abort, its connections go with it.
#[tokio::test]
async fn a_session_that_is_cut_off_leaves_no_connection() {
    let script = format!("{}{}< RSET\n> 250 ok\n< QUIT", ready_with_xclient("alice"), mail());
    let scripted = Scripted::start(&[&script]).await;
    let one = upstream(scripted.address);
    let task = tokio::spawn({
        let one = one.clone();
        async move {
            let alice = identity("alice");
            let _connections = one.session(alice.session);
            use_once(&one, &alice).await;
            panic!("as it is meant to");
        }
    });
    assert!(timeout(DEADLINE, task).await.unwrap().unwrap_err().is_panic());
    scripted.finish(1).await;
    drop(one);
}

/// Waits until this many greeted connections are ready for anybody.
async fn greeted_ahead(upstream: &Upstream, count: usize) {
    let ready = async {
        while upstream.shared.pool.ready() < count {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, ready).await.expect("connections greeted ahead");
}

/// As [`ready_with_xclient`], split into the part before XCLIENT and the rest.
fn before_and_after_xclient(login: &str) -> (String, String) {
    let whole = ready_with_xclient(login);
    let (before, after) = whole.split_at(whole.find("< XCLIENT").unwrap());
    (before.to_owned(), after.to_owned())
}

/// Plays three sessions, the third of which finds a connection greeted ahead that goes on with `ahead`. If `fresh`, a
/// fresh connection serves it instead.
async fn third_session(ahead: &str, fresh: bool) {
    let (greeting, rest) = before_and_after_xclient("carol");
    let ahead = format!("{greeting}{}", ahead.replace("REST", &rest));
    let mut scripts = vec![
        format!("{}{}", ready_with_xclient("alice"), mail()),
        format!("{}{}", ready_with_xclient("bob"), mail()),
        ahead,
    ];
    if fresh {
        scripts.push(format!("{greeting}{rest}{}", mail()));
    }
    let scripts: Vec<&str> = scripts.iter().map(String::as_str).collect();
    let scripted = Scripted::start(&scripts).await;
    // Leaves no place for one more greeted ahead.
    let upstream = Upstream::open(Settings { max_connections: 3, ..settings(scripted.address) }).unwrap();
    let (alice, bob, carol) = (identity("alice"), identity("bob"), identity("carol"));
    use_once(&upstream, &alice).await;
    use_once(&upstream, &bob).await;
    greeted_ahead(&upstream, 1).await;
    use_once(&upstream, &carol).await;
    upstream.close();
    scripted.finish(scripts.len()).await;
}

/// Issue 4: for such upstreams the pool holds a few greeted connections on which XCLIENT has not been sent yet.
#[tokio::test]
async fn where_sessions_come_often_one_is_greeted_ahead() {
    third_session(&format!("REST{}", mail()), false).await;
}

/// Wherever it ends, the client does not notice.
#[tokio::test]
async fn one_greeted_ahead_that_died_costs_nothing() {
    let xclient = "< XCLIENT ADDR=192.0.2.7 LOGIN=carol\n";
    let at_xclient = format!("{xclient}close");
    let refuses = format!("{xclient}> 421 4.3.2 too long\nclose");
    for end in ["close", &at_xclient, &refuses] {
        third_session(end, true).await;
    }
}

/// A refusal is the answer to this client, and no reason to leave the upstream in peace: others find one greeted ahead as before.
#[tokio::test]
async fn one_greeted_ahead_that_refuses_a_client_is_believed() {
    let served = |login: &str| format!("{}{}< RSET\n> 250 ok\n< QUIT", ready_with_xclient(login), mail());
    let (greeting, _) = before_and_after_xclient("");
    let refuses = format!("{greeting}< XCLIENT ADDR=192.0.2.7 LOGIN=carol\n> 550 5.7.0 no\n< QUIT");
    let scripted = Scripted::start(&[&served("alice"), &served("bob"), &refuses, &greeting]).await;
    let upstream = Upstream::open(Settings { max_connections: 4, ..settings(scripted.address) }).unwrap();
    for name in ["alice", "bob"] {
        use_once(&upstream, &identity(name)).await;
    }
    greeted_ahead(&upstream, 1).await;
    let mut carol = upstream.transaction(identity("carol"));
    assert_eq!(ask_one(&mut carol, MAIL).await, "Unavailable");
    assert!(!upstream.shared.pool.is_pausing());
    greeted_ahead(&upstream, 1).await;
    drop(carol);
    upstream.close();
    scripted.finish(4).await;
}

/// The connection that carried this session's XCLIENT, even if one greeted later would do as well.
#[tokio::test]
async fn a_session_takes_its_own_before_one_greeted_ahead() {
    let (greeting, _) = before_and_after_xclient("");
    let alice = format!("{}{m}< RSET\n> 250 ok\n{m}", ready_with_xclient("alice"), m = mail());
    let bob = format!("{}{}", ready_with_xclient("bob"), mail());
    let scripted = Scripted::start(&[&alice, &bob, &greeting]).await;
    let upstream = upstream(scripted.address);
    let (alice, bob) = (identity("alice"), identity("bob"));
    use_once(&upstream, &alice).await;
    use_once(&upstream, &bob).await;
    greeted_ahead(&upstream, 1).await;
    use_once(&upstream, &alice).await;
    upstream.close();
    let heard = scripted.finish(3).await;
    assert_eq!(heard[2], "EHLO gatepost.test\r\nQUIT\r\n");
}

/// Three sessions at once, while the upstream does not greet the connection ahead: nobody waits for it for long.
#[tokio::test]
async fn one_that_is_not_greeted_gives_its_place_to_whoever_waits() {
    let user = |name: &str| format!("{}{}", ready_with_xclient(name), mail());
    let (alice, bob, carol, dave) =
        (user("alice") + "< RSET\n> 250 ok\n< QUIT", user("bob"), user("carol"), user("dave"));
    let scripted = Scripted::start(&[&alice, &bob, "", &carol, &dave]).await;
    let upstream = Upstream::open(Settings { max_connections: 3, ..settings(scripted.address) }).unwrap();
    use_once(&upstream, &identity("alice")).await;
    let mut bob = upstream.transaction(identity("bob"));
    assert_eq!(ask_one(&mut bob, MAIL).await, "250 2.1.0 ok");
    let mut carol = upstream.transaction(identity("carol"));
    assert_eq!(ask_one(&mut carol, MAIL).await, "250 2.1.0 ok");
    let begun = Instant::now();
    use_once(&upstream, &identity("dave")).await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    upstream.close();
    drop((bob, carol));
    scripted.finish(5).await;
}

#[tokio::test]
async fn after_one_that_is_refused_none_is_greeted_ahead_for_a_while() {
    let (alice, bob) = (ready_with_xclient("alice") + &mail(), ready_with_xclient("bob") + &mail());
    let scripted = Scripted::start(&[&alice, &bob, "> 421 4.7.0 too many connections\nclose"]).await;
    let upstream = upstream(scripted.address);
    use_once(&upstream, &identity("alice")).await;
    use_once(&upstream, &identity("bob")).await;
    let refused = async {
        while upstream.shared.pool.place_ahead(Instant::now()).is_some() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, refused).await.expect("a pause");
    assert!(upstream.shared.pool.place_ahead(Instant::now()).is_none());
    upstream.close();
    scripted.finish(3).await;
}
