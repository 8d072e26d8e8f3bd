//! By hand: thousands of connections for half an hour, mixed mail, faults of the upstream; then memory, descriptors and the mail are looked at.
//!
//! `GATEPOST_SOAK=30m cargo test --test faults -- --ignored --nocapture soak` (`GATEPOST_SOAK_CONNECTIONS`, 2,000 unless told).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::plan::{Random, Whim};
use crate::support::gatepost::{PASSWORD, user_line};
use crate::support::smtp::{Heard, Smtp, stuffed};
use crate::upstream::{self, Mood};
use crate::world;

/// So many threads drive the connections, each its share of them in turn.
const THREADS: usize = 16;
/// Of the time, what memory may take to become what it is.
const WARM_UP: f64 = 0.25;
/// By so much memory may be more at the end than behind the warm-up.
const FLAT: f64 = 1.10;

#[derive(Default)]
struct Sent {
    acknowledged: Mutex<HashMap<String, bool>>,
    sessions: AtomicU64,
    broken: AtomicU64,
    deferred: AtomicU64,
}

#[test]
#[ignore = "half an hour by hand: GATEPOST_SOAK=30m"]
fn soak() {
    let text = std::env::var("GATEPOST_SOAK").unwrap_or_else(|_| "30m".to_owned());
    let (number, unit) = text.split_at(text.len() - 1);
    let time = Duration::from_secs(number.parse::<u64>().unwrap() * if unit == "m" { 60 } else { 1 });
    let connections = std::env::var("GATEPOST_SOAK_CONNECTIONS").map_or(2000, |text| text.parse().unwrap());
    let mood = std::sync::Arc::new(Mood::default());
    let upstream = upstream::start(&mood);
    let mut setup = world::setup(&upstream).set("upstream.max_connections", 400);
    for user in 0..50 {
        setup = setup.user_line(&user_line(&format!("user-{user}"), PASSWORD));
    }
    let mut gatepost = setup.start();
    let descriptors = gatepost.descriptors();
    let (sent, over) = (Sent::default(), AtomicBool::new(false));
    let began = Instant::now();
    let mut memory: Vec<(f64, u64)> = Vec::new();
    let mut collected: Vec<Vec<u8>> = Vec::new();
    let server = gatepost.starttls;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (sent, over) = (&sent, &over);
            let share = connections / THREADS;
            scope.spawn(move || drive(server, thread, share, sent, over));
        }
        let mut random = Random::new(1);
        let verbs = ["CONNECT", "MAIL", "RCPT", "DATA", "."];
        let whims = [Whim::Stall, Whim::Drop, Whim::HalfALine, Whim::Garbage, Whim::NotNow];
        while began.elapsed() < time {
            std::thread::sleep(Duration::from_secs(4));
            let verb = verbs[usize::try_from(random.below(5)).unwrap()];
            let whim = whims[usize::try_from(random.below(5)).unwrap()];
            mood.set(Some((verb, whim, 20)));
            std::thread::sleep(Duration::from_secs(1));
            mood.set(None);
            // The subjects alone: half an hour of mail is long.
            collected.extend(
                upstream.collect_taken().into_iter().map(|data| data[..data.len().min(1000)].to_vec()),
            );
            memory.push((began.elapsed().as_secs_f64() / time.as_secs_f64(), gatepost.memory().1));
        }
        over.store(true, Ordering::SeqCst);
    });
    let most = memory.iter().map(|(_, kib)| *kib).max().unwrap();
    let mean = |from: f64, to: f64| {
        let part: Vec<u64> =
            memory.iter().filter(|(at, _)| *at >= from && *at < to).map(|(_, kib)| *kib).collect();
        part.iter().sum::<u64>() as f64 / part.len().max(1) as f64
    };
    let (early, late) = (mean(WARM_UP, WARM_UP + 0.25), mean(0.75, 2.0));
    // Idle upstream connections are closed in a while.
    let left = crate::support::wait_for(Duration::from_secs(120), || {
        Some(gatepost.descriptors()).filter(|now| *now <= descriptors + 16)
    });
    let parked: std::collections::HashSet<String> =
        gatepost.parked().iter().map(|object| object["subject"].as_str().unwrap().to_owned()).collect();
    let mut taken: HashMap<String, usize> = HashMap::new();
    collected.extend(upstream.collect_taken());
    for data in collected {
        let text = String::from_utf8_lossy(&data);
        if let Some(rest) = text.split("\nSubject: ").nth(1) {
            *taken.entry(rest.lines().next().unwrap().to_owned()).or_default() += 1;
        }
    }
    let acknowledged = sent.acknowledged.into_inner().unwrap();
    let places = |id: &String| taken.get(id).copied().unwrap_or(0) + usize::from(parked.contains(id));
    let lost: Vec<_> = acknowledged.keys().filter(|id| places(id) == 0).collect();
    let twice: Vec<_> = acknowledged.keys().filter(|id| places(id) > 1).collect();
    println!(
        "{connections} connections, {} s: {} messages acknowledged ({} parked still), {} sessions, {} of them broken off, {} answers put off; \
         lost {}, twice {}; memory {:.1} MiB behind the warm-up, {:.1} MiB at the end, {:.1} MiB at most; descriptors {descriptors} before, {:?} after",
        began.elapsed().as_secs(),
        acknowledged.len(),
        parked.len(),
        sent.sessions.load(Ordering::SeqCst),
        sent.broken.load(Ordering::SeqCst),
        sent.deferred.load(Ordering::SeqCst),
        lost.len(),
        twice.len(),
        early / 1024.0,
        late / 1024.0,
        most as f64 / 1024.0,
        left,
    );
    assert!(lost.is_empty(), "{lost:?}");
    assert!(twice.is_empty(), "{twice:?}");
    assert!(left.is_some(), "{} descriptors are open still", gatepost.descriptors());
    assert!(late <= early * FLAT, "memory grew from {early} KiB to {late} KiB");
    assert!(!gatepost.log_text().contains("panicked at"));
    assert!(gatepost.terminate().success());
}

/// A share of the connections: each has its turn, and then waits while the others have theirs.
fn drive(server: std::net::SocketAddr, thread: usize, share: usize, sent: &Sent, over: &AtomicBool) {
    let mut clients: Vec<Option<Smtp>> = (0..share).map(|_| None).collect();
    let mut number = 0;
    while !over.load(Ordering::SeqCst) {
        for (place, client) in clients.iter_mut().enumerate() {
            if over.load(Ordering::SeqCst) {
                return;
            }
            number += 1;
            let id = format!("soak-{thread}-{number}");
            let kept = client.take().map_or_else(|| open(server, thread, place, sent), Ok);
            let used = kept.and_then(|mut kept| message(&mut kept, &id, number, sent).map(|()| kept));
            match used {
                // One in ten says goodbye by hanging up.
                Ok(kept) if number % 10 != 0 => *client = Some(kept),
                Ok(_) => {}
                Err(_) => drop(sent.broken.fetch_add(1, Ordering::SeqCst)),
            }
        }
    }
}

fn open(server: std::net::SocketAddr, thread: usize, place: usize, sent: &Sent) -> io::Result<Smtp> {
    sent.sessions.fetch_add(1, Ordering::SeqCst);
    if place.is_multiple_of(4) {
        return Smtp::try_login(server, &format!("user-{}", (thread * 7 + place / 4) % 50), PASSWORD);
    }
    let octet = |n: usize| u8::try_from(n % 250 + 1).unwrap();
    let source: IpAddr = Ipv4Addr::new(127, 1, octet(thread), octet(place)).into();
    let mut client = Smtp::try_open_from(source, server)?;
    client.code()?;
    client.tell("EHLO client.example")?;
    Ok(client)
}

fn message(client: &mut Smtp, id: &str, number: usize, sent: &Sent) -> io::Result<()> {
    client.tell("MAIL FROM:<alice@mta.example>")?;
    client.tell("RCPT TO:<bob@mta.example>")?;
    if number % 12 == 5 {
        client.tell(&format!("RCPT TO:<nobody-{id}@mta.example>"))?;
    }
    match client.tell("DATA")? {
        354 => {}
        _ => {
            sent.deferred.fetch_add(1, Ordering::SeqCst);
            client.tell("RSET")?;
            return Ok(());
        }
    }
    let body =
        "a line of the body of a message of the soak\r\n".repeat(if number % 50 == 7 { 8000 } else { 40 });
    client.try_send(&stuffed(
        format!("Message-ID: <{id}@client.example>\r\nSubject: {id}\r\n\r\n{body}").as_bytes(),
    ))?;
    match client.code()? {
        250 => drop(sent.acknowledged.lock().unwrap().insert(id.to_owned(), true)),
        _ => drop(sent.deferred.fetch_add(1, Ordering::SeqCst)),
    }
    Ok(())
}

impl Smtp {
    fn try_login(server: std::net::SocketAddr, name: &str, password: &str) -> io::Result<Self> {
        let mut client = Self::try_open(server)?;
        client.code()?;
        client.tell("EHLO client.example")?;
        client.tell("STARTTLS")?;
        client.try_begin_tls()?;
        client.tell("EHLO client.example")?;
        use base64::Engine as _;
        let credentials = base64::engine::general_purpose::STANDARD.encode(format!("\0{name}\0{password}"));
        client.tell(&format!("AUTH PLAIN {credentials}"))?;
        Ok(client)
    }

    fn tell(&mut self, line: &str) -> io::Result<u16> {
        self.try_send(format!("{line}\r\n").as_bytes())?;
        self.code()
    }

    fn code(&mut self) -> io::Result<u16> {
        match self.try_hear()? {
            Heard::Reply(reply) => Ok(reply.code),
            Heard::Closed => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
