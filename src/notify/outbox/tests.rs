//! The outbox against a minimal upstream on loopback. Every wait has a deadline.

use std::collections::HashMap;
use std::future::Future;
use std::task::Poll;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::net::address::{Address, Endpoint, Protection};
use crate::net::password::Credentials;
use crate::net::trust::KeyPair;
use crate::net::{pem, self_signed, tls};
use crate::notify::webhook::{self, Hook, Target};

const DEADLINE: Duration = Duration::from_secs(20);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(DEADLINE, what).await.unwrap()
}

/// A transaction as the upstream saw it: commands and message.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    commands: Vec<String>,
    message: String,
}

/// The upstream's replies by the beginning of a command; `""` is the greeting, `.` the end of data.
type Script = HashMap<&'static str, &'static str>;

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    script: Script,
    seen: mpsc::UnboundedSender<Seen>,
) {
    let mut stream = BufReader::new(stream);
    let say = |what: &str, usual: &str| {
        let known = script
            .iter()
            .find(|(begin, _)| if begin.is_empty() { what.is_empty() } else { what.starts_with(*begin) });
        format!("{}\r\n", known.map_or(usual, |(_, reply)| reply))
    };
    stream.write_all(say("", "220 mx ESMTP").as_bytes()).await.unwrap();
    let mut transaction = Seen::default();
    let mut line = String::new();
    while stream.read_line(&mut line).await.is_ok_and(|octets| octets > 0) {
        let command = std::mem::take(&mut line).trim_end().to_owned();
        let reply = match command.as_str() {
            "DATA" if script.contains_key("DATA") => say("DATA", ""),
            "DATA" => {
                stream.write_all(b"354 go on\r\n").await.unwrap();
                while stream.read_line(&mut line).await.is_ok_and(|octets| octets > 0)
                    && !line.ends_with("\r\n.\r\n")
                {}
                transaction.commands.push(command);
                transaction.message = std::mem::take(&mut line);
                let _ = seen.send(std::mem::take(&mut transaction));
                say(".", "250 2.0.0 Ok: queued as 1")
            }
            ehlo if ehlo.starts_with("EHLO") => say("EHLO", "250 mx"),
            _ => {
                let reply = say(&command, "250 2.1.0 Ok");
                transaction.commands.push(command);
                reply
            }
        };
        if stream.write_all(reply.as_bytes()).await.is_err() {
            break;
        }
    }
}

/// Starts an upstream; returns its port and what it sees.
async fn upstream(script: Script, acceptor: Option<TlsAcceptor>) -> (u16, mpsc::UnboundedReceiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (seen, sight) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            match &acceptor {
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, script.clone(), seen.clone()).await;
                    }
                }
                None => serve(stream, script.clone(), seen.clone()).await,
            }
        }
    });
    (port, sight)
}

fn endpoint(port: u16, tls_name: &str) -> Endpoint {
    let address = Address::Tcp { host: "127.0.0.1".into(), port };
    Endpoint { address, tls_name: tls_name.into() }
}

fn route(port: u16) -> Route {
    Route {
        endpoints: vec![endpoint(port, "mx.example.org")],
        protection: Protection::Off,
        ca: None,
        identity: None,
        login: None,
        hostname: "gate.example.org".into(),
        connect_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(5),
    }
}

fn mail(to: &[&str]) -> Mail {
    Mail {
        kind: Kind::Notice,
        from: Some("gatepost@example.org".into()),
        to: to.iter().map(|to| (*to).to_owned()).collect(),
        message: b"Subject: x\r\n\r\n.dot\r\n".to_vec(),
        require_tls: false,
    }
}

/// Runs the outbox; its events arrive over the channel. Ends when the handle is dropped.
fn run(outbox: &Outbox, route: Route) -> (mpsc::UnboundedReceiver<Event>, tokio::task::JoinHandle<String>) {
    let (events, seen) = mpsc::unbounded_channel();
    let outbox = outbox.clone();
    let task = tokio::spawn(async move {
        let Err(error) = outbox.run(&route, |event| events.send(event).unwrap()).await;
        error.to_string()
    });
    (seen, task)
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder.join("outbox")).unwrap().count()
}

#[tokio::test]
async fn a_mail_goes_out_at_once_and_its_file_away() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(folder.path()).unwrap();
    let (port, mut sight) = upstream(Script::new(), None).await;
    let (mut events, task) = run(&outbox, route(port));
    for round in 0..2 {
        let ids = outbox.put(mail(&["a@example.org", "b@example.org"]), clock::now()).await.unwrap();
        let mut sent = Vec::new();
        for _ in &ids {
            let Some(Event::Sent { id, to, reply, .. }) = soon(events.recv()).await else {
                panic!("round {round}")
            };
            assert_eq!(reply, "250 2.0.0 Ok: queued as 1");
            let seen = soon(sight.recv()).await.unwrap();
            let transaction = ["MAIL FROM:<gatepost@example.org>", &format!("RCPT TO:<{to}>"), "DATA"];
            assert_eq!(seen.commands, transaction);
            assert!(seen.message.starts_with("Subject: x\r\n\r\n..dot\r\n"), "{seen:?}");
            sent.push((id, to));
        }
        assert_eq!(sent, [(ids[0], "a@example.org".into()), (ids[1], "b@example.org".into())]);
        assert_eq!((files(folder.path()), outbox.waiting(), outbox.stuck()), (0, 0, vec![]));
    }
    task.abort();
}

#[tokio::test]
async fn a_null_reverse_path_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(folder.path()).unwrap();
    outbox.put(Mail { kind: Kind::Dsn, from: None, ..mail(&["a@example.org"]) }, clock::now()).await.unwrap();
    let (port, mut sight) = upstream(Script::new(), None).await;
    let (_events, task) = run(&outbox, route(port));
    assert!(soon(sight.recv()).await.unwrap().commands.contains(&"MAIL FROM:<>".to_owned()));
    task.abort();
}

#[tokio::test]
async fn what_is_put_off_waits_over_a_restart() {
    for script in [
        [("RCPT", "451 4.7.1 later")],
        [(".", "452 4.3.1 full")],
        [("", "554 5.7.1 not you")],
        [("EHLO", "550 5.7.1 no")],
    ] {
        let folder = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(folder.path()).unwrap();
        let created = clock::now();
        outbox.put(mail(&["a@example.org"]), created).await.unwrap();
        let (port, _sight) = upstream(Script::from(script), None).await;
        let (mut events, task) = run(&outbox, route(port));
        let Some(Event::Deferred { reply, next, .. }) = soon(events.recv()).await else {
            panic!("{script:?}")
        };
        assert_eq!(reply, script[0].1, "a refusal to greet us is not about the mail");
        let minutes = next.since(created).as_secs() / 60;
        assert_eq!(minutes, 5, "{script:?}");
        task.abort();

        let reopened = Outbox::open(folder.path()).unwrap();
        assert_eq!((reopened.waiting(), reopened.stuck()), (1, vec![]));
        let state = reopened.state();
        let meta = state.mails.values().next().unwrap();
        // A start tries it at once.
        let at_once = Some(Timestamp::default());
        assert_eq!((meta.tries, meta.next, meta.last.as_deref()), (1, at_once, Some(script[0].1)));
    }
}

#[tokio::test]
async fn nobody_there_is_no_refusal() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(folder.path()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let (mut events, task) = run(&outbox, route(port));
    let now = clock::now();
    outbox.put(mail(&["a@example.org"]), now).await.unwrap();
    let Some(Event::Deferred { next, .. }) = soon(events.recv()).await else { panic!("not put off") };
    let pause = next.since(now);
    assert!(pause >= ANYBODY_THERE, "{pause:?}");
    assert!(pause < Duration::from_secs(60), "it goes soon after somebody is there again: {next}");
    // The next failure is not news.
    let wait = |outbox: &Outbox| outbox.state().mails.values().next().unwrap().next.unwrap();
    outbox.state().mails.values_mut().for_each(|meta| meta.next = Some(now));
    outbox.shared.wake_notices.notify_one();
    let tried = async {
        while wait(&outbox) == now {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon(tried).await;
    assert!(timeout(Duration::from_millis(100), events.recv()).await.is_err());
    task.abort();
}

#[tokio::test]
async fn nobody_there_is_found_out_once_for_all() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(folder.path()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let unanswered = listener.local_addr().unwrap().port();
    let begun = clock::now();
    outbox.put(mail(&["a@example.org", "b@example.org", "c@example.org"]), begun).await.unwrap();
    let outbox = Outbox::open(folder.path()).unwrap(); // with nobody to wake it
    let patience = Duration::from_millis(300);
    let (mut events, task) = run(&outbox, Route { connect_timeout: patience, ..route(unanswered) });
    let Some(Event::Deferred { .. }) = soon(events.recv()).await else { panic!("not put off") };
    let more = timeout(4 * patience, events.recv()).await;
    assert!(more.is_err(), "each waits for nobody: {more:?}");
    assert_eq!(outbox.waiting(), 3);
    task.abort();
}

/// As in the content filter of an upstream that looks at what the report returns.
#[tokio::test]
async fn a_report_that_hangs_holds_up_no_notice() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(folder.path()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let patience = 10 * DEADLINE;
    let patient = Route { connect_timeout: patience, timeout: patience, ..route(port) };
    let (mut events, task) = run(&outbox, patient);
    let report = Mail { kind: Kind::Dsn, from: None, ..mail(&["sender@example.org"]) };
    outbox.put(report, clock::now()).await.unwrap();
    let (hanging, _) = soon(listener.accept()).await.unwrap();
    outbox.put(mail(&["desk@example.org"]), clock::now()).await.unwrap();
    let (stream, _) = soon(listener.accept()).await.unwrap();
    let (seen, _sight) = mpsc::unbounded_channel();
    tokio::spawn(serve(stream, Script::new(), seen));
    let event = soon(events.recv()).await;
    assert!(matches!(&event, Some(Event::Sent { to, .. }) if to == "desk@example.org"), "{event:?}");
    drop(hanging);
    task.abort();
}

/// One that keeps silent takes its time with each mail; the others do not wait for that.
#[tokio::test]
async fn an_address_that_puts_off_waits_for_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(folder.path()).unwrap();
    let now = clock::now();
    let mut ids = Vec::new();
    for _ in 0..2 {
        ids.extend(outbox.put(mail(&["silent@example.org", "desk@example.org"]), now).await.unwrap());
    }
    let mut state = outbox.state();
    let order = |state: &State| {
        let (mut left, mut order) = (state.mails.clone(), Vec::new());
        while let Some(id) = (State { mails: left.clone(), ..State::default() })
            .next(Lane::Notices, now, &HashSet::new())
            .map(|(id, _)| id)
        {
            left.get_mut(&id).unwrap().next = Some(now.after(DEADLINE));
            order.push(id);
        }
        order
    };
    assert_eq!(order(&state), ids);
    let silent = state.mails.get_mut(&ids[0]).unwrap();
    (silent.tries, silent.next) = (1, Some(now.after(DEADLINE)));
    assert_eq!(order(&state), [ids[1], ids[3], ids[2]], "its new mail too");
    state.mails.get_mut(&ids[0]).unwrap().next = Some(now);
    assert_eq!(order(&state), [ids[1], ids[3], ids[0], ids[2]]);
}

/// It need not wait until all that was there has been tried.
#[tokio::test]
async fn what_comes_during_a_round_goes_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(folder.path()).unwrap();
    let (port, _sight) = upstream(Script::from([("RCPT", "451 4.7.1 later")]), None).await;
    let carrier = Carrier::new(&route(port)).unwrap();
    let bearer = Bearer::Mail(Lane::Notices, &carrier);
    outbox.put(mail(&["silent@example.org"]), clock::now()).await.unwrap();
    let (began, mut tried) = (clock::now(), Vec::new());
    soon(outbox.send_due(&bearer, began, None, &mut |event| {
        let Event::Deferred { to, .. } = event else { panic!("{event:?}") };
        if tried.is_empty() {
            let came = outbox.state().batch(vec![mail(&["desk@example.org"])], clock::now());
            outbox.state().mails.extend(write_all(&outbox.shared.folder, &came).unwrap());
        }
        tried.push(to);
    }))
    .await;
    assert_eq!(tried, ["silent@example.org", "desk@example.org"]);
}

/// The next start would send it again.
#[tokio::test]
async fn what_could_not_be_removed_is_removed_later() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(folder.path()).unwrap();
    let id = outbox.put(mail(&["a@example.org"]), clock::now()).await.unwrap()[0];
    // A folder cannot be removed as a file is.
    let path = outbox.path(id);
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let mut told = Vec::new();
    outbox.remove(id, &mut |event| told.push(event)).await;
    assert!(matches!(&told[..], [Event::Trouble(_)]), "{told:?}");
    assert!(!outbox.remove_spent().await);
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, "sent").unwrap();
    assert!(outbox.remove_spent().await && outbox.state().spent.is_empty());
    assert!(!path.exists());
}

#[tokio::test]
async fn what_is_refused_for_good_stays_to_be_seen() {
    for script in [
        [("MAIL", "550 5.7.1 no")],
        [("RCPT", "550 5.1.1 who")],
        [("DATA", "554 5.5.1 no")],
        [(".", "554 5.6.0 spam")],
    ] {
        let folder = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(folder.path()).unwrap();
        let ids = outbox.put(mail(&["a@example.org"]), clock::now()).await.unwrap();
        let (port, _sight) = upstream(Script::from(script), None).await;
        let (mut events, task) = run(&outbox, route(port));
        let reply = script[0].1.to_owned();
        let expected = Event::GivenUp { id: ids[0], kind: Kind::Notice, to: "a@example.org".into(), reply };
        assert_eq!(soon(events.recv()).await, Some(expected));
        task.abort();

        let reopened = Outbox::open(folder.path()).unwrap();
        let [stuck] = &reopened.stuck()[..] else { panic!("{script:?}") };
        let said = format!("a notice for a@example.org was given up; the last try: {}; ", script[0].1);
        assert!(
            stuck.why.starts_with(&said) && stuck.why.ends_with("when the file is removed"),
            "{}",
            stuck.why
        );
        assert_eq!(reopened.waiting(), 0);
        std::fs::remove_file(&stuck.path).unwrap();
        assert_eq!(reopened.stuck(), []);
    }
}

#[test]
fn the_times_are_those_of_a_release() {
    let created = Timestamp::from_millis(1_795_536_328_123);
    let mut meta = Meta::new(&mail(&[]), "a@example.org", created);
    let mut now = created;
    let mut waits = Vec::new();
    while let Some(next) = meta.next {
        waits.push(next.since(now).as_secs() / 60);
        now = next;
        meta.settle("451 later", now, false, Some(Span { earliest: now, latest: now }));
    }
    assert_eq!(waits[..7], [0, 5, 10, 20, 40, 60, 60]);
    assert_eq!(now.since(created), Duration::from_secs(5 * 86_400), "then it is given up");
}

/// Created in 1970, before the clock was put right.
#[tokio::test]
async fn a_clock_that_was_behind_gives_nothing_up() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let (busy, _sight) = upstream(Script::from([("RCPT", "451 4.7.1 later")]), None).await;
    let now = clock::now();
    for (port, tries, unreached, gone) in [
        (busy, 1, 0, false),
        (busy, 23, 0, true),
        (busy, 0, 23 * 240, true),
        (closed, 1, 200, false),
        (closed, 0, 24 * 240, true),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(folder.path()).unwrap();
        outbox.put(mail(&["a@example.org"]), Timestamp::default()).await.unwrap();
        outbox.state().mails.values_mut().for_each(|meta| (meta.tries, meta.unreached) = (tries, unreached));
        let carrier = Carrier::new(&route(port)).unwrap();
        let bearer = Bearer::Mail(Lane::Notices, &carrier);
        let said = Some(Span { earliest: now, latest: now });
        let mut events = Vec::new();
        soon(outbox.send_due(&bearer, now, said, &mut |event| events.push(event))).await;
        let given_up = matches!(events[..], [Event::GivenUp { .. }]);
        assert!(events.len() == 1 && given_up == gone, "{tries} {unreached}: {events:?}");
        let stuck = outbox.stuck();
        assert!(
            stuck.len() == usize::from(gone) && !stuck.iter().any(|one| one.why.contains("refused for good"))
        );
    }
}

/// What was put off while the clock was ahead waits for an hour at most once it is back.
#[tokio::test]
async fn a_clock_that_was_ahead_puts_nothing_off_for_long() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(folder.path()).unwrap();
    let now = clock::now();
    outbox.put(mail(&["a@example.org"]), now).await.unwrap();
    let hour = Duration::from_secs(60 * 60);
    let next = |outbox: &Outbox| outbox.state().mails.values().next().unwrap().next.unwrap();
    outbox.state().mails.values_mut().for_each(|meta| meta.next = Some(now.after(48 * hour)));
    let carrier = Carrier::new(&route(1)).unwrap();
    let bearer = Bearer::Mail(Lane::Notices, &carrier);
    let wait = outbox.send_due(&bearer, now, None, &mut |event| panic!("{event:?}")).await.unwrap();
    assert!(wait <= hour && wait > hour / 2, "{wait:?}");
    assert_eq!(next(&outbox), now.after(hour));
    // That time stays.
    let later = now.after(hour / 2);
    outbox.send_due(&bearer, later, None, &mut |event| panic!("{event:?}")).await;
    assert_eq!(next(&outbox), now.after(hour));
}

/// The next try is then earlier than the time at which the round began.
#[tokio::test]
async fn a_clock_that_is_set_back_during_a_round_repeats_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(folder.path()).unwrap();
    let day = Duration::from_secs(86_400);
    outbox.put(mail(&["a@example.org"]), clock::now()).await.unwrap();
    let (port, _sight) = upstream(Script::from([("RCPT", "451 4.7.1 later")]), None).await;
    let carrier = Carrier::new(&route(port)).unwrap();
    let bearer = Bearer::Mail(Lane::Notices, &carrier);
    let mut tries = 0;
    let ahead = clock::now().after(day);
    soon(outbox.send_due(&bearer, ahead, None, &mut |_| {
        tries += 1;
        assert_eq!(tries, 1, "put off, and tried again at once");
    }))
    .await;
    assert_eq!(tries, 1);
}

/// Nobody knows yet for how long the clock has said that it is that old.
#[tokio::test]
async fn a_clock_that_is_days_ahead_gives_nothing_up() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let (busy, _sight) = upstream(Script::from([("RCPT", "451 4.7.1 later")]), None).await;
    for (port, wait) in [(busy, Duration::from_secs(60 * 60)), (closed, ANYBODY_THERE)] {
        let folder = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(folder.path()).unwrap();
        let begun = clock::now();
        outbox.put(mail(&["a@example.org"]), begun.before(Duration::from_secs(6 * 86_400))).await.unwrap();
        let (mut events, task) = run(&outbox, route(port));
        let event = soon(events.recv()).await.unwrap();
        let Event::Deferred { next, .. } = event else { panic!("{event:?}") };
        assert!(next.since(begun) >= wait && next.since(begun) < wait + DEADLINE, "{next}");
        task.abort();
    }
}

#[tokio::test]
async fn a_broken_file_hinders_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(folder.path()).unwrap();
    outbox.put(mail(&["a@example.org"]), clock::now()).await.unwrap();
    std::fs::write(folder.path().join("outbox/notes.txt"), "x").unwrap();
    std::fs::write(folder.path().join("outbox/.tmp-left-over"), "x").unwrap();
    let outbox = Outbox::open(folder.path()).unwrap();
    assert_eq!(outbox.waiting(), 1);
    assert!(outbox.stuck().iter().any(|stuck| stuck.path.ends_with("notes.txt")), "{:?}", outbox.stuck());
}

#[tokio::test]
async fn an_address_that_is_none_is_refused_and_never_sent() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(folder.path()).unwrap();
    outbox.put(mail(&["a@b.c>\r\nRCPT TO:<d@e.f"]), clock::now()).await.unwrap();
    let (port, mut sight) = upstream(Script::new(), None).await;
    let (mut events, task) = run(&outbox, route(port));
    assert!(matches!(soon(events.recv()).await, Some(Event::GivenUp { .. })));
    outbox.put(mail(&["a@b.c"]), clock::now()).await.unwrap();
    assert!(soon(sight.recv()).await.unwrap().commands.contains(&"RCPT TO:<a@b.c>".to_owned()));
    task.abort();
}

#[tokio::test]
async fn what_the_disk_did_not_take_goes_out_once_it_does() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(folder.path()).unwrap();
    let (port, _sight) = upstream(Script::new(), None).await;
    let (mut events, task) = run(&outbox, route(port));
    // A folder that is missing takes no file.
    std::fs::remove_dir(folder.path().join("outbox")).unwrap();
    assert!(outbox.put(mail(&["a@example.org"]), clock::now()).await.is_err());
    outbox.keep(vec![mail(&["a@example.org"])], clock::now());
    assert!(matches!(soon(events.recv()).await, Some(Event::Trouble(_))));
    assert_eq!(outbox.waiting(), 1);
    task.abort();

    let outbox = Outbox::open(folder.path()).unwrap();
    outbox.keep(vec![mail(&["a@example.org"])], clock::now());
    let (mut events, task) = run(&outbox, route(port));
    assert!(matches!(soon(events.recv()).await, Some(Event::Sent { .. })));
    assert_eq!((outbox.waiting(), files(folder.path())), (0, 0));
    task.abort();
}

#[tokio::test]
async fn what_the_disk_has_goes_out_whatever_it_takes() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(folder.path()).unwrap();
    let there = outbox.put(mail(&["there@example.org"]), clock::now()).await.unwrap();
    // Files are read by path, but written into the folder that was opened.
    let (path, place) = (outbox.path(there[0]), folder.path().join("outbox"));
    let content = std::fs::read(&path).unwrap();
    std::fs::remove_dir_all(&place).unwrap();
    std::fs::create_dir(&place).unwrap();
    std::fs::write(&path, content).unwrap();
    outbox.keep(vec![mail(&["kept@example.org"])], clock::now());
    let (port, _sight) = upstream(Script::new(), None).await;
    let (mut events, task) = run(&outbox, route(port));
    let mut troubles = 0;
    let to = loop {
        match soon(events.recv()).await {
            Some(Event::Sent { to, .. }) => break to,
            // That the one is not written and that the other is not removed.
            Some(Event::Trouble(_)) if troubles < 2 => troubles += 1,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((to.as_str(), outbox.waiting()), ("there@example.org", 1));
    task.abort();
}

/// One more than fits: the oldest is dropped, even while it is being written, and no other.
#[tokio::test]
async fn the_oldest_makes_room() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(folder.path()).unwrap();
    let to = |number: usize| mail(&[&format!("{number}@example.org")]);
    for number in 0..=MAX_KEPT {
        outbox.keep(vec![to(number)], clock::now());
    }
    assert_eq!(outbox.waiting(), MAX_KEPT);
    let mut report = |_| {};
    let mut writing = Box::pin(outbox.write_kept(&mut report));
    let once = std::future::poll_fn(|context| Poll::Ready(writing.as_mut().poll(context)));
    assert!(once.await.is_pending(), "it has the oldest in its hands");
    outbox.keep(vec![to(MAX_KEPT + 1)], clock::now());
    let written = async {
        while outbox.state().mails.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        _ = writing => panic!("so fast?"),
        () = soon(written) => {}
    }
    let state = outbox.state();
    let kept = state.kept.iter().flat_map(|batch| &batch.mails).flat_map(|mail| mail.to.clone());
    let all: HashSet<_> = state.mails.values().map(|meta| meta.to.clone()).chain(kept).collect();
    assert!((1..=MAX_KEPT + 1).all(|number| all.contains(&format!("{number}@example.org"))));
    assert_eq!(all.len(), MAX_KEPT + 1, "the oldest went");
}

#[tokio::test]
async fn of_several_the_first_that_is_ready() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(folder.path()).unwrap();
    let (refusing, _sight) = upstream(Script::from([("", "554 5.7.1 not you")]), None).await;
    let (good, mut sight) = upstream(Script::new(), None).await;
    let socket = folder.path().join("mta");
    let listener = UnixListener::bind(&socket).unwrap();
    let (seen, mut local) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            serve(stream, Script::new(), seen.clone()).await;
        }
    });
    let nobody = Endpoint { address: Address::Unix(folder.path().join("none")), tls_name: String::new() };
    let local_one = Endpoint { address: Address::Unix(socket), tls_name: String::new() };
    let (there, gone) = (endpoint(good, ""), endpoint(refusing, ""));
    for (endpoints, sight) in
        [(vec![nobody, gone, there.clone()], &mut sight), (vec![local_one, there], &mut local)]
    {
        outbox.put(mail(&["a@example.org"]), clock::now()).await.unwrap();
        let (mut events, task) = run(&outbox, Route { endpoints, ..route(good) });
        assert!(matches!(soon(events.recv()).await, Some(Event::Sent { .. })));
        assert_eq!(soon(sight.recv()).await.unwrap().commands.len(), 3);
        task.abort();
    }
}

#[tokio::test]
async fn our_own_login() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(folder.path()).unwrap();
    let password_file = folder.path().join("password");
    std::fs::write(&password_file, "secret\n").unwrap();
    let login = Some(Credentials { username: "gate".into(), password_file });
    for (offer, reply, taken) in [
        ("250-mx\r\n250 AUTH PLAIN LOGIN", "235 2.7.0 ok", true),
        ("250-mx\r\n250 AUTH PLAIN LOGIN", "535 5.7.8 no", false),
        ("250 mx", "235 2.7.0 ok", false),
    ] {
        outbox.put(mail(&["a@example.org"]), clock::now()).await.unwrap();
        let (port, mut sight) = upstream(Script::from([("EHLO", offer), ("AUTH", reply)]), None).await;
        let (mut events, task) = run(&outbox, Route { login: login.clone(), ..route(port) });
        let event = soon(events.recv()).await.unwrap();
        assert_eq!(matches!(event, Event::Sent { .. }), taken, "{event:?}");
        assert_eq!(matches!(event, Event::Deferred { .. }), !taken, "{event:?}");
        if taken {
            let seen = soon(sight.recv()).await.unwrap();
            assert_eq!(seen.commands[0], "AUTH PLAIN AGdhdGUAc2VjcmV0");
        }
        task.abort();
    }
}

#[tokio::test]
async fn our_own_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (name, host) in [("mta", "mx.example.org"), ("gate", "gate.example.org")] {
        let pair = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
        std::fs::write(path(&format!("{name}.crt")), pair.cert.pem()).unwrap();
        std::fs::write(path(&format!("{name}.key")), pair.signing_key.serialize_pem()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut anchors = rustls::RootCertStore::empty();
    anchors.add(pem::certificates(&path("gate.crt")).unwrap().remove(0)).unwrap();
    let anchors = Arc::new(anchors);
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(anchors, Arc::clone(&provider));
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            pem::certificates(&path("mta.crt")).unwrap(),
            pem::private_key(&path("mta.key")).unwrap(),
        );
    let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
    let (port, _sight) = upstream(Script::new(), Some(acceptor)).await;
    let outbox = Outbox::open(folder.path()).unwrap();
    let pair = KeyPair { certificate: path("gate.crt"), private_key: path("gate.key") };
    for (identity, taken) in [(Some(pair), true), (None, false)] {
        outbox.put(mail(&["a@example.org"]), clock::now()).await.unwrap();
        let protection = Protection::Implicit;
        let secured = Route { protection, ca: Some(path("mta.crt")), identity, ..route(port) };
        let (mut events, task) = run(&outbox, secured);
        let event = soon(events.recv()).await.unwrap();
        assert_eq!(matches!(event, Event::Sent { .. }), taken, "{event:?}");
        task.abort();
    }
}

#[tokio::test]
async fn tls_is_verified() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    self_signed::ensure(&path("ca.pem"), &path("key.pem"), "mx.example.org").unwrap();
    let acceptor = TlsAcceptor::from(tls::server_config(&path("ca.pem"), &path("key.pem")).unwrap());
    let (port, mut sight) = upstream(Script::new(), Some(acceptor)).await;
    let outbox = Outbox::open(folder.path()).unwrap();
    let protected = Route { protection: Protection::Implicit, ca: Some(path("ca.pem")), ..route(port) };
    for (route, taken, why) in [
        (protected.clone(), true, "the name and the anchor fit"),
        (
            Route { endpoints: vec![endpoint(port, "other.example.org")], ..protected.clone() },
            false,
            "another name",
        ),
        (Route { ca: None, ..protected.clone() }, false, "an unknown anchor"),
    ] {
        outbox.put(mail(&["a@example.org"]), clock::now()).await.unwrap();
        let (mut events, task) = run(&outbox, route);
        let event = soon(events.recv()).await.unwrap();
        assert_eq!(matches!(event, Event::Sent { .. }), taken, "{why}: {event:?}");
        assert_eq!(matches!(event, Event::Deferred { .. }), !taken, "{why}: {event:?}");
        task.abort();
    }
    assert!(soon(sight.recv()).await.is_some());

    let (port, _sight) = upstream(Script::new(), None).await;
    let (mut events, task) = run(&outbox, Route { protection: Protection::StartTls, ..route(port) });
    outbox.put(mail(&["a@example.org"]), clock::now()).await.unwrap();
    let event = soon(events.recv()).await.unwrap();
    assert!(matches!(event, Event::Deferred { .. }), "STARTTLS is required: {event:?}");
    task.abort();

    let (_, task) = run(&outbox, Route { ca: Some(path("none.pem")), ..protected });
    assert!(soon(task).await.unwrap().contains("none.pem"), "and an anchor that is not there is told");
}

/// RFC 8689 5: a DSN about a message with REQUIRETLS is sent with it if it is offered within verified TLS, and waits
/// otherwise.
#[tokio::test]
async fn require_tls_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    self_signed::ensure(&path("ca.pem"), &path("key.pem"), "mx.example.org").unwrap();
    let acceptor = || Some(TlsAcceptor::from(tls::server_config(&path("ca.pem"), &path("key.pem")).unwrap()));
    let offer = || Script::from([("EHLO", "250-mx\r\n250 REQUIRETLS")]);
    let (offering, mut seen) = upstream(offer(), acceptor()).await;
    let (lacking, mut unseen) = upstream(Script::new(), acceptor()).await;
    let (clear, mut unseen_too) = upstream(offer(), None).await;
    let protected =
        |port| Route { protection: Protection::Implicit, ca: Some(path("ca.pem")), ..route(port) };
    let outbox = Outbox::open(folder.path()).unwrap();
    for (route, sent) in [(route(clear), false), (protected(lacking), false), (protected(offering), true)] {
        let dsn = Mail { kind: Kind::Dsn, from: None, require_tls: true, ..mail(&["a@example.org"]) };
        outbox.put(dsn, clock::now()).await.unwrap();
        let (mut events, task) = run(&outbox, route);
        let event = soon(events.recv()).await.unwrap();
        match event {
            Event::Sent { .. } => assert!(sent),
            Event::Deferred { reply, .. } => assert!(!sent && reply.contains("no REQUIRETLS"), "{reply}"),
            other => panic!("{other:?}"),
        }
        task.abort();
    }
    let commands = soon(seen.recv()).await.unwrap().commands;
    assert_eq!(commands, ["MAIL FROM:<> REQUIRETLS", "RCPT TO:<a@example.org>", "DATA"]);
    assert!(unseen.try_recv().is_err() && unseen_too.try_recv().is_err());
}

fn secret(folder: &tempfile::TempDir) -> PathBuf {
    let path = folder.path().join("secret");
    webhook::Secrets::make_if_missing(&path).unwrap();
    path
}

/// Events have a lane of their own; those about the same account are sent one after the other, in order.
#[tokio::test]
async fn events_keep_their_order_and_wait_for_no_mail() {
    let folder = tempfile::tempdir().unwrap();
    let secrets = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(folder.path()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    // Events older than some days would not be put off.
    let began = clock::now();
    let about = |account: &str, n: u64| {
        let now = began.after(Duration::from_millis(n));
        (webhook::event("account.blocked", account, now, &n).unwrap(), now)
    };
    // Nobody takes mail: the upstream's port is closed.
    outbox.put(mail(&["a@example.org"]), clock::now()).await.unwrap();
    for (n, account) in ["user:anna", "user:bert", "user:anna", "user:anna"].into_iter().enumerate() {
        let (event, now) = about(account, n as u64);
        outbox.put(event, now).await.unwrap();
    }
    let messenger = Messenger::new(Some(Hook {
        target: Target::parse(&url).unwrap(),
        secret_file: secret(&secrets),
        own_secret: false,
    }));
    let (events, mut seen) = mpsc::unbounded_channel();
    let task = {
        let outbox = outbox.clone();
        tokio::spawn(async move { outbox.run_events(&messenger, |event| events.send(event).unwrap()).await })
    };
    // The first event about anna is not taken: bert's is sent, her others wait.
    for (answer, data) in [("503 Service Unavailable", 0), ("200 OK", 1)] {
        let (mut stream, _) = soon(listener.accept()).await.unwrap();
        let mut request = vec![0; 4096];
        let length = soon(stream.read(&mut request)).await.unwrap();
        let request = String::from_utf8_lossy(&request[..length]).into_owned();
        assert!(request.ends_with(&format!("\"data\":{data}}}")), "{request}");
        stream.write_all(format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await.unwrap();
    }
    // The order of the two is unspecified.
    let both = [soon(seen.recv()).await.unwrap(), soon(seen.recv()).await.unwrap()];
    let put_off = both.iter().find_map(|event| match event {
        Event::Deferred { to, next, .. } if to == "user:anna" => Some(next.since(clock::now()).as_secs()),
        _ => None,
    });
    assert!(put_off.is_some_and(|wait| (290..=300).contains(&wait)), "as a release, in 5 minutes: {both:?}");
    assert!(
        both.iter().any(|event| matches!(event, Event::Sent { to, .. } if to == "user:bert")),
        "{both:?}"
    );
    assert!(
        timeout(Duration::from_millis(300), listener.accept()).await.is_err(),
        "anna's others wait for her first"
    );
    assert_eq!(outbox.waiting(), 4, "the mail too");
    task.abort();
    let _ = task.await;

    // A restart tries again.
    let outbox = Outbox::open(folder.path()).unwrap();
    let messenger = Messenger::new(Some(Hook {
        target: Target::parse(&url).unwrap(),
        secret_file: secret(&secrets),
        own_secret: false,
    }));
    let task = tokio::spawn(async move { outbox.run_events(&messenger, |_| ()).await });
    for data in [0, 2, 3] {
        let (mut stream, _) = soon(listener.accept()).await.unwrap();
        let mut request = vec![0; 4096];
        let length = soon(stream.read(&mut request)).await.unwrap();
        let request = String::from_utf8_lossy(&request[..length]).into_owned();
        assert!(request.ends_with(&format!("\"data\":{data}}}")), "{request}");
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    }
    task.abort();
}

/// Each is created an hour before the one that it follows.
#[tokio::test]
async fn events_keep_their_order_though_the_clock_is_set_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut outbox = Outbox::open(folder.path()).unwrap();
    let now = clock::now();
    let at = |n: u32| now.before(n * Duration::from_secs(3_600));
    let event = |n: u32| webhook::event("account.blocked", "user:anna", at(n), &n).unwrap();
    for n in [0, 1] {
        outbox.put(event(n), at(n)).await.unwrap();
    }
    // The disk takes it later than the next one.
    outbox.keep(vec![event(2)], at(2));
    outbox.put(event(3), at(3)).await.unwrap();
    assert!(outbox.write_kept(&mut |event| panic!("{event:?}")).await);
    for n in [4, 5] {
        outbox = Outbox::open(folder.path()).unwrap();
        outbox.put(event(n), at(n)).await.unwrap();
    }
    let created: Vec<_> = outbox.state().mails.values().map(|meta| meta.created).collect();
    assert_eq!(created, [0, 1, 2, 3, 4, 5].map(at));
}

/// An orderly stop lets what is on its way arrive: it is not sent again by the next process.
#[tokio::test]
async fn what_is_on_its_way_arrives_before_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(folder.path()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    outbox.put(mail(&["a@example.org"]), clock::now()).await.unwrap();
    let (_events, task) = run(&outbox, route(port));
    let (near, far) = tokio::io::duplex(1_024);
    let (seen, mut sight) = mpsc::unbounded_channel();
    tokio::spawn(serve(far, Script::new(), seen));
    let (mut near_read, mut near_write) = tokio::io::split(near);
    let (mut read, mut write) = soon(listener.accept()).await.unwrap().0.into_split();
    tokio::spawn(async move { tokio::io::copy(&mut read, &mut near_write).await });
    let (ended, end) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        // What the upstream says goes through, but for its reply to the end of data: that waits.
        let mut replies = BufReader::new(&mut near_read).lines();
        let mut end = Some(end);
        while let Ok(Some(line)) = replies.next_line().await {
            if line.contains("queued")
                && let Some(end) = end.take()
            {
                end.await.unwrap();
            }
            write.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
        }
    });
    soon(sight.recv()).await.unwrap();
    let mut finishing = std::pin::pin!(outbox.finish());
    assert!(timeout(Duration::from_millis(100), &mut finishing).await.is_err(), "it is on its way");
    ended.send(()).unwrap();
    soon(finishing).await;
    assert_eq!(files(folder.path()), 0, "it has arrived, and nobody sends it again");
    // Nothing goes out any more.
    outbox.put(mail(&["b@example.org"]), clock::now()).await.unwrap();
    assert!(timeout(Duration::from_millis(100), listener.accept()).await.is_err());
    assert_eq!(files(folder.path()), 1);
    task.abort();
}
