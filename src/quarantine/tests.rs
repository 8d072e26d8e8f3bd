//! The spool on a real disk: acknowledged mail is there, anything else leaves nothing behind, and one message's damage
//! hides no other.
#![cfg(test)]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::envelope::{Release, State};
use super::parking::BUFFER;
use super::sample::{self, sha256};
use super::spool::{Entry, Filter, Limits, ParkError, Parking, Salvaged, Spool, SpoolError, Usage};
use super::{Envelope, files};
use crate::account::Account;
use crate::clock::{self, Timestamp};
use crate::durable::TEMP_PREFIX;
use crate::id::QuarantineId;

mod crash;
mod full_disk;
mod throughput;

const DEADLINE: Duration = Duration::from_secs(30);

fn limits() -> Limits {
    Limits { max_size: 1 << 40, max_size_per_account: 1 << 40, expire_after: None }
}

fn anna() -> Account {
    "anna".parse().unwrap()
}

async fn open(home: &Path) -> Spool {
    Spool::open(home, limits()).await.unwrap()
}

async fn spool() -> (tempfile::TempDir, Spool) {
    let home = tempfile::tempdir().unwrap();
    let spool = open(home.path()).await;
    (home, spool)
}

/// Returns the envelope that fits what was written.
fn envelope(parking: &Parking, account: &Account) -> Envelope {
    let (size, sha256) = parking.digest();
    Envelope { size, sha256, account: account.clone(), ..sample::envelope(parking.id(), b"") }
}

async fn park_as(spool: &Spool, account: &Account, content: &[u8]) -> Result<QuarantineId, ParkError> {
    let mut parking = spool.begin(account, clock::now()).await?;
    for piece in content.chunks(10_000) {
        parking.write(piece).await?;
    }
    let (id, envelope) = (parking.id(), envelope(&parking, account));
    parking.commit(&envelope).await.map_err(|unparked| unparked.error)?;
    Ok(id)
}

async fn park(spool: &Spool, content: &[u8]) -> QuarantineId {
    park_as(spool, &anna(), content).await.unwrap()
}

/// Returns what is due at `now`, in the order in which it goes.
fn due(spool: &Spool, now: Timestamp) -> Vec<(QuarantineId, State)> {
    let mut claimed = Vec::new();
    while let Some(next) = spool.claim_due(now, |_| true) {
        claimed.push(next);
    }
    claimed.iter().map(|(held, line)| (held.id(), line.state)).collect()
}

async fn salvaged(mut content: Salvaged) -> Vec<u8> {
    let (mut octets, size) = (Vec::new(), content.size());
    loop {
        let piece = content.next().await.unwrap();
        if piece.is_empty() {
            assert_eq!(octets.len() as u64, size);
            return octets;
        }
        octets.extend(piece);
    }
}

async fn content(mut reader: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut octets = Vec::new();
    reader.read_to_end(&mut octets).await.unwrap();
    octets
}

fn folder(home: &Path) -> PathBuf {
    home.join("quarantine")
}

/// Lists the folder without the lock.
fn names(home: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder(home)).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "lock" && name != "version")
        .collect()
}

fn pair(id: QuarantineId) -> [String; 2] {
    [files::envelope_name(id), files::message_name(id)]
}

async fn eventually(mut condition: impl FnMut() -> bool) {
    tokio::time::timeout(DEADLINE, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .expect("it did not come about in time");
}

#[tokio::test]
async fn a_parked_message_is_there_as_it_arrived() {
    let (home, spool) = spool().await;
    for size in [0, 1, BUFFER - 1, BUFFER, BUFFER + 1, 5 * BUFFER + 7] {
        let octets: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        let mut parking = spool.begin(&anna(), clock::now()).await.unwrap();
        for piece in octets.chunks(50_021) {
            parking.write(piece).await.unwrap();
        }
        assert_eq!(parking.digest(), (size as u64, sha256(&octets)));
        let (id, envelope) = (parking.id(), envelope(&parking, &anna()));
        let before = spool.usage(None);
        assert!(spool.envelope(id).await.is_err(), "nobody sees it before it is parked");
        parking.commit(&envelope).await.unwrap();
        assert_eq!(names(home.path()), pair(id).into());
        for name in pair(id) {
            let found = std::fs::metadata(folder(home.path()).join(name)).unwrap();
            assert_eq!(found.permissions().mode() & 0o7777, 0o600);
        }
        assert_eq!(spool.envelope(id).await.unwrap(), envelope);
        assert_eq!(content(spool.message(id).await.unwrap()).await, octets);
        assert_eq!(spool.usage(None).octets, before.octets + size as u64);
        spool.remove(id).await.unwrap();
        assert_eq!(names(home.path()), [].into());
        assert_eq!(spool.remove(id).await, Err(SpoolError::Unknown(id.to_string())));
    }
    assert_eq!(std::fs::metadata(folder(home.path())).unwrap().permissions().mode() & 0o7777, 0o700);
    assert_eq!(spool.usage(None), Usage::default());
}

#[tokio::test]
async fn what_is_dropped_or_refused_leaves_nothing_behind() {
    let (home, spool) = spool().await;
    for size in [100, 3 * BUFFER] {
        let mut parking = spool.begin(&anna(), clock::now()).await.unwrap();
        parking.write(&vec![b'x'; size]).await.unwrap();
        let good = envelope(&parking, &anna());
        for other in [
            Envelope { id: sample::id(1), ..good.clone() },
            Envelope { size: good.size + 1, ..good.clone() },
            Envelope { sha256: sha256(b"other"), ..good.clone() },
            Envelope { account: "bert".parse().unwrap(), ..good.clone() },
            Envelope { version: 2, ..good.clone() },
        ] {
            let mut parking = spool.begin(&anna(), clock::now()).await.unwrap();
            parking.write(&vec![b'x'; size]).await.unwrap();
            let id = if other.id == good.id { parking.id() } else { other.id };
            let error = parking.commit(&Envelope { id, ..other }).await.unwrap_err().error;
            assert!(matches!(error, ParkError::Io(_)), "{error}");
        }
        drop(parking);
    }
    eventually(|| names(home.path()).is_empty()).await;
    assert_eq!((spool.usage(None), spool.fill_level()), (Usage::default(), 0.0));
}

/// Whatever kept it from being parked: what had arrived of it can be recovered, to the octet, and exists nowhere else.
#[tokio::test]
async fn what_could_not_be_parked_can_be_had_back() {
    let home = tempfile::tempdir().unwrap();
    let limit = 4 * BUFFER as u64 + 100;
    let limits = Limits { max_size: limit, max_size_per_account: limit, expire_after: None };
    let spool = Spool::open(home.path(), limits).await.unwrap();
    let octets: Vec<u8> = (0..limit + 1).map(|at| (at % 251) as u8).collect();
    for (first, then) in
        [(0, 1), (100, 1), (BUFFER, 1), (BUFFER + 1, BUFFER), (3 * BUFFER + 5, 2), (4 * BUFFER, 100)]
    {
        // One octet too many follows as many as fit.
        let mut parking = spool.begin(&anna(), clock::now()).await.unwrap();
        let came = &octets[..first + then];
        for piece in [&came[..first], &came[first..]].into_iter().flat_map(|part| part.chunks(50_021)) {
            parking.write(piece).await.unwrap();
        }
        let error = parking.write(&octets).await.unwrap_err();
        assert!(matches!(error, ParkError::Full(_)), "{error}");
        assert_eq!(parking.write(b"x").await, Err(error.clone()));
        assert!(salvaged(parking.salvage().unwrap()).await == came, "{first} + {then}");
        // All of it arrived, but the envelope belongs to another message.
        let mut parking = spool.begin(&anna(), clock::now()).await.unwrap();
        parking.write(came).await.unwrap();
        let unparked = parking.commit(&sample::envelope(sample::id(1), b"")).await.unwrap_err();
        assert!(salvaged(unparked.content.unwrap()).await == came, "{first} + {then}");
        // The name is taken, which shows only when the file is renamed.
        let mut parking = spool.begin(&anna(), clock::now()).await.unwrap();
        parking.write(came).await.unwrap();
        let good = envelope(&parking, &anna());
        std::fs::write(folder(home.path()).join(files::message_name(good.id)), b"older").unwrap();
        let unparked = parking.commit(&good).await.unwrap_err();
        assert!(salvaged(unparked.content.unwrap()).await == came, "{first} + {then}");
        std::fs::remove_file(folder(home.path()).join(files::message_name(good.id))).unwrap();
    }
    eventually(|| names(home.path()).is_empty()).await;
    assert_eq!((spool.usage(None), spool.fill_level()), (Usage::default(), 0.0));
}

#[tokio::test]
async fn a_folder_that_went_away_is_an_error_and_loses_nobody_else_anything() {
    let (home, spool) = spool().await;
    let kept = park(&spool, b"kept").await;
    let mut small = spool.begin(&anna(), clock::now()).await.unwrap();
    let mut big = spool.begin(&anna(), clock::now()).await.unwrap();
    small.write(b"small").await.unwrap();
    let moved = home.path().join("moved");
    std::fs::rename(folder(home.path()), &moved).unwrap();
    assert!(matches!(spool.begin(&anna(), clock::now()).await, Err(ParkError::Io(_))));
    assert!(matches!(spool.claim(kept).await.map(drop), Err(SpoolError::Unreadable { .. })));
    std::fs::rename(&moved, folder(home.path())).unwrap();
    // A folder takes the place of the envelope.
    std::fs::create_dir(folder(home.path()).join(files::envelope_name(small.id()))).unwrap();
    let of_small = envelope(&small, &anna());
    let small_id = small.id();
    let unparked = small.commit(&of_small).await.unwrap_err();
    assert!(matches!(unparked.error, ParkError::Io(_)));
    assert_eq!(salvaged(unparked.content.unwrap()).await, b"small");
    std::fs::remove_dir(folder(home.path()).join(files::envelope_name(small_id))).unwrap();
    big.write(&vec![0; 3 * BUFFER]).await.unwrap();
    let of_big = envelope(&big, &anna());
    big.commit(&of_big).await.unwrap();
    assert_eq!(spool.claim(kept).await.unwrap().envelope().size, 4);
    assert_eq!(spool.usage(None).messages, 2);
    assert_eq!(names(home.path()).len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_come_at_once_never_pass_the_limits() {
    let home = tempfile::tempdir().unwrap();
    let (of_all, of_one) = (20 * 4096, 12 * 4096);
    let limits = Limits { max_size: of_all, max_size_per_account: of_one, expire_after: None };
    let spool = Spool::open(home.path(), limits).await.unwrap();
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let (spool, account) = (spool.clone(), ["anna", "bert"][task % 2].parse::<Account>().unwrap());
            tokio::spawn(async move { park_as(&spool, &account, &[b'x'; 4096]).await })
        })
        .collect();
    let mut parked = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => parked += 1,
            Err(error) => assert!(matches!(&error, ParkError::Full(_)), "{error}"),
        }
        assert!(spool.usage(None).octets <= of_all && spool.usage(Some(&anna())).octets <= of_one);
    }
    assert_eq!(parked, 20);
    assert_eq!(spool.usage(None), Usage { messages: 20, octets: of_all });
    assert!(matches!(spool.room(&anna(), 0), Err(ParkError::Full(_))));
    assert!(matches!(spool.begin(&anna(), clock::now()).await, Err(ParkError::Full(_))));
    assert_eq!(spool.became_nearly_full(), Some(Usage { messages: 20, octets: of_all }));
    assert_eq!(spool.became_nearly_full(), None);
    spool.remove(spool.ids(Some(&anna()))[0]).await.unwrap();
    spool.room(&anna(), 4096).unwrap();
    assert!(matches!(spool.room(&anna(), 4097), Err(ParkError::Full(_))));
    park_as(&spool, &anna(), &[b'x'; 4097]).await.unwrap_err();
    park_as(&spool, &anna(), &[b'x'; 4096]).await.unwrap();
    eventually(|| names(home.path()).len() == 40).await;
}

/// Memory may be short at any moment; all of it is there in the end, whether it is parked or had back.
#[tokio::test]
async fn what_is_held_of_a_message_can_be_written_out() {
    let (home, spool) = spool().await;
    let octets: Vec<u8> = (0..2 * BUFFER + 90_000).map(|at| (at % 251) as u8).collect();
    let begin = async || {
        let mut parking = spool.begin(&anna(), clock::now()).await.unwrap();
        parking.spill().await;
        assert_eq!(parking.held(), 0);
        for piece in octets.chunks(30_000) {
            parking.write(piece).await.unwrap();
            if parking.held() > 40_000 {
                parking.spill().await;
                assert_eq!(parking.held(), 0);
            }
            assert!(parking.held() <= BUFFER);
        }
        parking
    };
    let parking = begin().await;
    let (id, good) = (parking.id(), envelope(&parking, &anna()));
    parking.commit(&good).await.unwrap();
    assert!(content(spool.message(id).await.unwrap()).await == octets);
    assert!(salvaged(begin().await.salvage().unwrap()).await == octets);
    // The disk fails, which shows at the next write or at the commit.
    for writes in [true, false] {
        let (home, spool) = self::spool().await;
        let mut parking = spool.begin(&anna(), clock::now()).await.unwrap();
        parking.write(b"came").await.unwrap();
        std::fs::remove_dir_all(folder(home.path())).unwrap();
        parking.spill().await;
        let rescued = if writes {
            assert!(matches!(parking.write(b"later").await, Err(ParkError::Io(_))));
            parking.salvage().unwrap()
        } else {
            let good = envelope(&parking, &anna());
            parking.commit(&good).await.unwrap_err().content.unwrap()
        };
        assert_eq!(salvaged(rescued).await, b"came");
    }
    eventually(|| names(home.path()) == pair(id).into()).await;
}

/// A message of no octets for many recipients: what it takes is its envelope, in memory as after a restart; and once that
/// does not fit, the message can be had back.
#[tokio::test]
async fn what_is_written_beside_a_message_counts() {
    const MIB: u64 = 1024 * 1024;
    let home = tempfile::tempdir().unwrap();
    let limits = Limits { max_size: 2 * MIB, max_size_per_account: 2 * MIB, expire_after: None };
    let spool = Spool::open(home.path(), limits.clone()).await.unwrap();
    let crowd = |parking: &Parking| {
        let mut envelope = envelope(parking, &anna());
        envelope.recipients = vec![envelope.recipients[0].clone(); 5_000];
        envelope
    };
    let written = |home: &Path| {
        names(home).iter().map(|name| std::fs::metadata(folder(home).join(name)).unwrap().len()).sum::<u64>()
    };
    let mut parked = 0;
    let (content, refused) = loop {
        let mut parking = spool.begin(&anna(), clock::now()).await.unwrap();
        parking.write(b"x").await.unwrap();
        let envelope = crowd(&parking);
        match parking.commit(&envelope).await {
            Ok(()) => parked += 1,
            Err(unparked) => break (unparked.content.unwrap(), unparked.error),
        }
        assert!(parked < 100, "for ever");
    };
    assert!(matches!(refused, ParkError::Full(_)), "{refused}");
    assert_eq!(salvaged(content).await, b"x");
    assert_eq!(spool.usage(None), Usage { messages: parked, octets: parked });
    assert!(parked > 1 && written(home.path()) < 2 * MIB + MIB / 4, "{parked}: {}", written(home.path()));
    let level = spool.fill_level();
    assert!(level > 0.7, "{level}");
    drop(spool);
    // One is unreadable from now on, which does not make it smaller.
    let damaged = names(home.path()).into_iter().find(|name| name.ends_with(".envelope")).unwrap();
    let mut text = std::fs::read(folder(home.path()).join(&damaged)).unwrap();
    text[0] = b'x';
    std::fs::write(folder(home.path()).join(&damaged), &text).unwrap();
    let spool = Spool::open(home.path(), limits).await.unwrap();
    assert_eq!((spool.unreadable(), spool.fill_level()), (1, level));
    text[0] = b'{';
    std::fs::write(folder(home.path()).join(&damaged), &text).unwrap();
    spool.envelope(damaged.trim_end_matches(".envelope").parse().unwrap()).await.unwrap();
    assert_eq!((spool.unreadable(), spool.fill_level()), (0, level));
    let mut claim = spool.claim(spool.ids(None)[0]).await.unwrap();
    let mut shorter = claim.envelope().clone();
    shorter.recipients.truncate(1);
    claim.update(shorter).await.unwrap();
    assert!(spool.fill_level() < level);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_claim_one_wins() {
    let (_home, spool) = spool().await;
    let id = park(&spool, b"content").await;
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let spool = spool.clone();
            tokio::spawn(async move { spool.claim(id).await })
        })
        .collect();
    let mut won = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            Ok(claim) => won.push(claim),
            Err(error) => assert_eq!(error, SpoolError::Claimed(id)),
        }
    }
    assert_eq!(won.len(), 1);
    assert_eq!(spool.remove(id).await, Err(SpoolError::Claimed(id)));
    drop(won);
    let claim = spool.claim(id).await.unwrap();
    assert_eq!(content(claim.message().await.unwrap()).await, b"content");
    claim.finish().await.unwrap();
    assert_eq!(spool.claim(id).await.map(drop), Err(SpoolError::Unknown(id.to_string())));
}

fn releasing(envelope: &Envelope, next: Option<Timestamp>) -> Envelope {
    let release = Release { requested: envelope.parked, quiet: false, by_itself: false, tries: 1, next };
    Envelope { release: Some(release), ..envelope.clone() }
}

#[tokio::test]
async fn a_change_is_durable_and_known_at_once() {
    let (home, spool) = spool().await;
    let id = park(&spool, b"content").await;
    let at = Timestamp::from_millis(5_000);
    let mut claim = spool.claim(id).await.unwrap();
    let changed = releasing(claim.envelope(), Some(at));
    claim.update(changed.clone()).await.unwrap();
    assert_eq!(claim.envelope(), &changed);
    assert_eq!((spool.next_due(), due(&spool, at)), (None, vec![]), "it is in hand");
    for other in [
        Envelope { id: sample::id(1), ..changed.clone() },
        Envelope { size: 1, ..changed.clone() },
        Envelope { sha256: String::new(), ..changed.clone() },
        Envelope { account: "bert".parse().unwrap(), ..changed.clone() },
    ] {
        assert!(matches!(claim.update(other).await, Err(SpoolError::Io(_))));
    }
    drop(claim);
    assert_eq!((spool.next_due(), due(&spool, at)), (Some(at), vec![(id, State::Releasing)]));
    drop(spool);
    let spool = open(home.path()).await;
    assert_eq!(spool.envelope(id).await.unwrap(), changed);
    assert_eq!(due(&spool, at), [(id, State::Releasing)]);
    assert_eq!(names(home.path()), pair(id).into());
}

#[tokio::test]
async fn who_goes_away_in_the_middle_of_a_change_lets_nobody_see_the_old_one() {
    let (_home, spool) = spool().await;
    let id = park(&spool, b"content").await;
    let mut claim = spool.claim(id).await.unwrap();
    let changed = releasing(claim.envelope(), None);
    tokio::select! {
        biased;
        _ = claim.update(changed.clone()) => panic!("it was to be interrupted"),
        () = std::future::ready(()) => {}
    }
    drop(claim);
    let claim = tokio::time::timeout(DEADLINE, async {
        loop {
            match spool.claim(id).await {
                Ok(claim) => return claim,
                Err(error) => assert_eq!(error, SpoolError::Claimed(id)),
            }
        }
    });
    assert_eq!(claim.await.unwrap().envelope(), &changed);
}

#[tokio::test]
async fn a_change_that_cannot_be_written_leaves_the_message_where_it_is() {
    let (home, spool) = spool().await;
    let id = park(&spool, b"content").await;
    let mut claim = spool.claim(id).await.unwrap();
    let path = folder(home.path()).join(files::envelope_name(id));
    let aside = home.path().join("aside");
    std::fs::rename(&path, &aside).unwrap();
    std::fs::create_dir(&path).unwrap();
    let changed = releasing(claim.envelope(), None);
    assert!(matches!(claim.update(changed).await, Err(SpoolError::Io(_))));
    assert_eq!(claim.envelope().release, None);
    assert!(matches!(claim.finish().await, Err(SpoolError::Io(_))));
    drop(claim);
    std::fs::remove_dir(&path).unwrap();
    std::fs::rename(&aside, &path).unwrap();
    assert_eq!(names(home.path()), pair(id).into());
    spool.claim(id).await.unwrap().finish().await.unwrap();
    assert_eq!((names(home.path()), spool.usage(None)), ([].into(), Usage::default()));
}

#[tokio::test]
async fn what_cannot_be_read_is_listed_and_hides_nothing() {
    let (home, spool) = spool().await;
    let mut ids = Vec::new();
    for content in ["good", "no message", "no JSON", "newer", "renamed", "a folder"] {
        ids.push(park(&spool, content.as_bytes()).await);
    }
    drop(spool);
    let in_folder = |name: &str| folder(home.path()).join(name);
    let envelope_of = |place: usize| in_folder(&files::envelope_name(ids[place]));
    std::fs::remove_file(in_folder(&files::message_name(ids[1]))).unwrap();
    std::fs::write(envelope_of(2), "{").unwrap();
    let newer = std::fs::read_to_string(envelope_of(3)).unwrap().replace("\"version\": 1", "\"version\": 9");
    std::fs::write(envelope_of(3), newer).unwrap();
    std::fs::copy(envelope_of(0), envelope_of(4)).unwrap();
    std::fs::remove_file(envelope_of(5)).unwrap();
    std::fs::create_dir(envelope_of(5)).unwrap();
    let orphan = files::message_name(sample::id(7));
    let temporary = format!("{TEMP_PREFIX}1-1");
    let foreign = ["README", "x.message", "01ARZ3NDEKTSV4RRFFQ69G5FAV.bak", "lost+found"];
    for name in [&orphan, &temporary].into_iter().map(String::as_str).chain(foreign) {
        std::fs::write(in_folder(name), "x").unwrap();
    }
    let spool = open(home.path()).await;
    let found = names(home.path());
    assert!(!found.contains(&orphan) && !found.contains(&temporary));
    assert!(foreign.iter().all(|name| found.contains(*name)));
    let entries = spool.list(&Filter::default(), None, 99).await;
    let mut listed: Vec<_> = entries
        .iter()
        .map(|entry| match entry {
            Entry::Message(envelope) => (envelope.id, envelope.size, "good"),
            Entry::Unreadable { id, size, cause } => (*id, *size, cause.as_str()),
        })
        .collect();
    listed.sort_by_key(|(id, ..)| ids.iter().position(|known| known == id));
    let expected = [
        (4, "good"),
        (0, "message file is missing"),
        (7, "does not parse: EOF"),
        (5, "version 9; this Gatepost knows up to 1"),
        (7, "envelope is that of 0"),
        (8, "Is a directory"),
    ];
    assert_eq!(listed.len(), expected.len());
    for ((id, size, cause), (place, (expected_size, expected))) in
        listed.iter().zip(expected.iter().enumerate())
    {
        assert_eq!((*id, *size), (ids[place], *expected_size), "{cause}");
        assert!(cause.contains(expected), "{cause} / {expected}");
    }
    assert_eq!(spool.unreadable(), 5);
    let of_anna = Filter { account: Some(anna()), ..Filter::default() };
    assert_eq!(spool.list(&of_anna, None, 99).await.len(), 1);
    assert_eq!(spool.usage(None), Usage { messages: 6, octets: 31 });
    assert!(matches!(spool.claim(ids[2]).await.map(drop), Err(SpoolError::Unreadable { .. })));
    assert_eq!(content(spool.message(ids[2]).await.unwrap()).await, b"no JSON");
    assert_eq!(content(spool.raw_envelope(ids[2]).await.unwrap()).await, b"{");
    spool.remove(ids[2]).await.unwrap();
    assert_eq!(spool.list(&Filter::default(), None, 99).await.len(), 5);
    // Once repaired by hand, it is readable without a restart.
    let mended = Envelope { size: 7, sha256: sha256(b"renamed"), ..sample::envelope(ids[4], b"") };
    std::fs::write(envelope_of(4), mended.encode().unwrap()).unwrap();
    spool.claim(ids[4]).await.unwrap();
    assert_eq!(spool.unreadable(), 3);
    assert_eq!(spool.usage(Some(&anna())).messages, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_give_each_once_while_others_come_and_go() {
    let (home, spool) = spool().await;
    drop(spool);
    let born = |millis: u64| Timestamp::from_millis(1_000_000 + millis);
    let ids: BTreeSet<_> = (0..2000).map(|place| QuarantineId::new(born(place / 3))).collect();
    for id in &ids {
        let envelope = Envelope { size: 0, sha256: sha256(b""), ..sample::envelope(*id, b"") };
        std::fs::write(folder(home.path()).join(files::envelope_name(*id)), envelope.encode().unwrap())
            .unwrap();
        std::fs::write(folder(home.path()).join(files::message_name(*id)), b"").unwrap();
    }
    let spool = open(home.path()).await;
    let (mut seen, mut after, mut others) = (Vec::<QuarantineId>::new(), None, Vec::new());
    loop {
        others.push(park(&spool, b"comes").await);
        if others.len() > 5 {
            spool.remove(others.remove(0)).await.unwrap();
        }
        let page = spool.list(&Filter::default(), after, 100).await;
        let page_ids: Vec<_> = page
            .iter()
            .map(|entry| match entry {
                Entry::Message(envelope) => envelope.id,
                Entry::Unreadable { cause, .. } => panic!("{cause}"),
            })
            .collect();
        after = page_ids.last().copied();
        seen.extend(page_ids.iter().filter(|id| ids.contains(id)));
        if page.len() < 100 {
            break;
        }
    }
    assert!(seen.into_iter().eq(ids));
    assert_eq!(spool.list(&Filter::default(), None, 0).await.len(), 0);
}

#[tokio::test]
async fn filters() {
    let (_home, spool) = spool().await;
    let base = Timestamp::from_millis(1_000_000);
    let mut ids = Vec::new();
    for (place, (name, subject)) in
        [("anna", Some("Grüße aus Köln")), ("bert", Some("Invoice 12")), ("anna", None)]
            .into_iter()
            .enumerate()
    {
        let account: Account = name.parse().unwrap();
        let born = base.after(Duration::from_secs(place as u64));
        let parking = spool.begin(&account, born).await.unwrap();
        let parked = born.after(Duration::from_secs(60));
        let subject = subject.map(str::to_owned);
        let envelope = Envelope { subject, parked, ..envelope(&parking, &account) };
        ids.push(parking.id());
        parking.commit(&envelope).await.unwrap();
    }
    let filter = Filter::default;
    for (filter, expected) in [
        (filter(), &[0, 1, 2][..]),
        (Filter { account: Some(anna()), ..filter() }, &[0, 2]),
        (Filter { account: Some("carl".parse().unwrap()), ..filter() }, &[]),
        (Filter { subject: Some("GRÜSSE".into()), ..filter() }, &[]),
        (Filter { subject: Some("GRÜ".into()), ..filter() }, &[0]),
        (Filter { subject: Some("voice".into()), ..filter() }, &[1]),
        (Filter { subject: Some(String::new()), ..filter() }, &[0, 1, 2]),
        (Filter { sender: Some("x".into()), ..filter() }, &[]),
        (Filter { since: Some(base.after(Duration::from_secs(61))), ..filter() }, &[1, 2]),
        (Filter { since: Some(base.after(Duration::from_secs(63))), ..filter() }, &[]),
    ] {
        let found = spool.list(&filter, None, 9).await;
        let found = found.iter().map(|entry| match entry {
            Entry::Message(envelope) => envelope.id,
            Entry::Unreadable { id, .. } => *id,
        });
        assert!(found.eq(expected.iter().map(|place| ids[*place])), "{filter:?}");
    }
    assert_eq!(spool.resolve(&ids[1].to_string()), Some(ids[1]));
    assert_eq!(spool.resolve(&ids[1].to_string().to_lowercase()), Some(ids[1]));
    assert_eq!(spool.resolve("4F2A91B0C3"), ids.last().copied());
    assert_eq!(spool.resolve("4f2a91b0c3"), None);
    assert_eq!(spool.resolve(&sample::id(1).to_string()), None);
    let (known, unknown) = (ids[0].to_string(), sample::id(1).to_string());
    let found = spool.resolve_all([known.as_str(), &unknown, "4F2A91B0C3", "", &known]);
    assert_eq!(found, [(known.as_str(), ids[0]), ("4F2A91B0C3", ids[2])].into());
    assert_eq!(spool.ids(Some(&anna())), [ids[0], ids[2]]);
}

#[tokio::test]
async fn only_what_waits_expires() {
    let home = tempfile::tempdir().unwrap();
    let day = Duration::from_secs(24 * 3600);
    let limits = Limits { expire_after: Some(day), ..limits() };
    let spool = Spool::open(home.path(), limits).await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..300 {
        ids.push(park(&spool, b"content").await);
    }
    ids.sort();
    let mut failed = spool.claim(ids[0]).await.unwrap();
    let changed = releasing(failed.envelope(), None);
    failed.update(changed).await.unwrap();
    drop(failed);
    let claimed = spool.claim(ids[1]).await.unwrap();
    let later = clock::now().after(day + Duration::from_secs(60));
    assert_eq!(spool.expire(clock::now(), &[].into(), later).await, []);
    let before_all = clock::now().before(day);
    assert_eq!(spool.expire(later, &[].into(), before_all).await, [], "no digest announced them");
    let mut expired = spool.expire(later, &[].into(), later).await;
    expired.sort();
    assert_eq!(expired, ids[2..]);
    drop(claimed);
    assert_eq!(spool.expire(later, &[].into(), later).await, [ids[1]]);
    assert_eq!(spool.ids(None), [ids[0]]);
}

/// Mail that is to go out, and could not be read at the start, goes as soon as it can be read.
#[tokio::test]
async fn what_could_not_be_read_at_the_start_is_read_again() {
    let home = tempfile::tempdir().unwrap();
    let spool = open(home.path()).await;
    let base = clock::now();
    let mut ids = Vec::new();
    for _ in 0..2 {
        let parking = spool.begin(&anna(), base).await.unwrap();
        let envelope = Envelope { due: Some(base), ..envelope(&parking, &anna()) };
        ids.push(parking.id());
        parking.commit(&envelope).await.unwrap();
    }
    drop(spool);
    ids.sort();
    let path = folder(home.path()).join(files::envelope_name(ids[0]));
    let text = std::fs::read(&path).unwrap();
    for trouble in [&b"{"[..], b""] {
        std::fs::write(&path, trouble).unwrap();
        let spool = open(home.path()).await;
        assert_eq!((spool.unreadable(), spool.read_again(None).await), (1, (0, None)));
        std::fs::write(&path, &text).unwrap();
        assert_eq!(due(&spool, base), [(ids[1], State::Parked)]);
        assert_eq!(spool.read_again(Some(ids[0])).await, (0, None), "those after it");
        assert_eq!(spool.read_again(None).await, (1, None));
        assert_eq!((spool.unreadable(), spool.usage(Some(&anna())).messages), (0, 2));
        assert_eq!(due(&spool, base).len(), 2);
    }
    // No digest has shown it: it does not expire as soon as it can be read.
    let day = Duration::from_secs(24 * 3600);
    std::fs::write(&path, "{").unwrap();
    let limits = Limits { expire_after: Some(30 * day), ..limits() };
    let spool = Spool::open(home.path(), limits).await.unwrap();
    std::fs::write(&path, &text).unwrap();
    assert_eq!(spool.read_again(None).await, (1, None));
    let late = base.after(40 * day);
    assert_eq!(spool.expire(late, &[anna()].into(), late).await, [ids[1]]);
}

/// It is acknowledged, so it must not be gone an hour after the clock is put right.
#[tokio::test]
async fn what_came_while_the_clock_was_behind_expires_as_if_it_had_come_when_it_was_right() {
    let home = tempfile::tempdir().unwrap();
    let day = Duration::from_secs(24 * 3600);
    let open =
        async || Spool::open(home.path(), Limits { expire_after: Some(30 * day), ..limits() }).await.unwrap();
    let right = clock::now();
    let spool = open().await;
    spool.settled(right).await;
    drop(spool);
    let spool = open().await;
    assert_eq!(spool.floor(), right);
    let mut ids = Vec::new();
    for now in [Timestamp::default(), right.before(40 * day), Timestamp::default()] {
        let parking = spool.begin(&anna(), now).await.unwrap();
        let envelope = Envelope { parked: now, ..envelope(&parking, &anna()) };
        ids.push(parking.id());
        parking.commit(&envelope).await.unwrap();
    }
    assert!(ids.is_sorted(), "in the order of their arrival");
    let second = Duration::from_secs(1);
    for (later, old, expired) in [(day, 0, &[][..]), (30 * day, 0, &[]), (30 * day + second, 3, &ids[..])] {
        let now = right.after(later);
        let waiting = spool.waiting(Some(now.before(30 * day)));
        assert_eq!(waiting.iter().map(|of| of.old).sum::<u64>(), old, "as a digest announces them");
        assert_eq!(spool.expire(now, &[].into(), now).await, expired, "{later:?} later");
    }
}

/// Files go first, then the record: in between, a listing does not show it as unreadable.
#[tokio::test]
async fn what_is_being_removed_is_not_listed() {
    let home = tempfile::tempdir().unwrap();
    let spool = open(home.path()).await;
    let id = park(&spool, b"content").await;
    let claimed = spool.claim(id).await.unwrap();
    std::fs::remove_file(folder(home.path()).join(files::envelope_name(id))).unwrap();
    assert!(spool.list(&Filter::default(), None, 9).await.is_empty());
    drop(claimed);
    // It is not claimed: somebody took the file away.
    let listed = spool.list(&Filter::default(), None, 9).await;
    assert!(matches!(listed[..], [Entry::Unreadable { .. }]), "{listed:?}");
}

/// Mail that would go out by itself now waits for an operator, even if its time was postponed; also after a restart.
#[tokio::test]
async fn what_was_awaited_can_be_kept() {
    let home = tempfile::tempdir().unwrap();
    let spool = open(home.path()).await;
    let base = clock::now();
    let at = |minutes: u64| base.after(Duration::from_secs(60 * minutes));
    let mut ids = Vec::new();
    for name in ["anna", "anna", "bert"] {
        let account: Account = name.parse().unwrap();
        let parking = spool.begin(&account, base).await.unwrap();
        let envelope = Envelope { due: Some(at(30)), parked: base, ..envelope(&parking, &account) };
        ids.push(parking.id());
        parking.commit(&envelope).await.unwrap();
    }
    spool.postpone(&anna(), at(50));
    // Messages that are claimed or cannot be written are not kept: the call must be repeated.
    let claim = spool.claim(ids[0]).await.unwrap();
    assert!(matches!(spool.keep(&anna(), None).await, Err(SpoolError::Claimed(_))));
    drop(claim);
    // All of them arrived in the same millisecond.
    assert!(
        due(&spool, at(99)).iter().map(|(id, _)| *id).collect::<BTreeSet<_>>() == [ids[0], ids[2]].into()
    );
    let (there, gone) = (folder(home.path()), home.path().join("moved"));
    std::fs::rename(&there, &gone).unwrap();
    assert!(spool.keep(&anna(), None).await.is_err());
    std::fs::rename(&gone, &there).unwrap();
    assert_eq!(due(&spool, at(99)).len(), 2);
    spool.keep(&anna(), Some(at(49))).await.unwrap();
    assert_eq!(due(&spool, at(99)).len(), 2, "none was due by then");
    spool.keep(&anna(), Some(at(50))).await.unwrap();
    assert_eq!(due(&spool, at(99)), [(ids[2], State::Parked)]);
    let waiting = spool.waiting(Some(at(1)));
    let shown: Vec<_> =
        waiting.iter().map(|of| (of.account.as_str(), of.usage.messages, of.awaited, of.old)).collect();
    assert_eq!(shown, [("user:anna", 2, 0, 2), ("user:bert", 1, 1, 1)]);
    assert_eq!(spool.oldest_waiting(), Some(base));
    drop(spool);
    let spool = open(home.path()).await;
    assert_eq!(spool.envelope(ids[0]).await.unwrap().due, None);
    assert_eq!(due(&spool, at(99)).len(), 1);
}

/// A disk that takes nothing is not asked again for each message, and a long line is kept in pieces.
#[tokio::test]
async fn what_was_awaited_is_kept_piece_by_piece() {
    let home = tempfile::tempdir().unwrap();
    let spool = open(home.path()).await;
    let base = clock::now();
    let mut ids = Vec::new();
    for n in 0..5 {
        let parking = spool.begin(&anna(), base).await.unwrap();
        let envelope =
            Envelope { due: Some(base.after(Duration::from_secs(n))), ..envelope(&parking, &anna()) };
        ids.push(parking.id());
        parking.commit(&envelope).await.unwrap();
    }
    let left = |spool: &Spool| spool.awaited(&anna()).messages;
    spool.keep_some(&anna(), None, 2).await.unwrap();
    assert_eq!((left(&spool), spool.envelope(ids[1]).await.unwrap().due), (3, None));
    // A folder cannot be read.
    let path = folder(home.path()).join(files::envelope_name(ids[2]));
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(matches!(spool.keep(&anna(), None).await, Err(SpoolError::Io(_))));
    assert_eq!(left(&spool), 3, "nothing after the error was tried");
    std::fs::remove_dir(&path).unwrap();
    assert!(matches!(spool.keep(&anna(), None).await, Err(SpoolError::Unreadable { .. })));
    assert_eq!(left(&spool), 1, "damage to one message is its own");
}

/// A further alarm postpones what waits: in memory for every caller at once, on disk once that is asked for, and never
/// a release.
#[tokio::test]
async fn due_times_are_put_off() {
    let home = tempfile::tempdir().unwrap();
    let spool = open(home.path()).await;
    let base = clock::now();
    let at = |minutes: u64| base.after(Duration::from_secs(60 * minutes));
    let mut ids = Vec::new();
    for (name, due) in [("anna", Some(at(30))), ("anna", None), ("bert", Some(at(30)))] {
        let account: Account = name.parse().unwrap();
        let parking = spool.begin(&account, base).await.unwrap();
        let envelope = Envelope { due, parked: base, ..envelope(&parking, &account) };
        ids.push(parking.id());
        parking.commit(&envelope).await.unwrap();
    }
    assert_eq!(spool.next_due(), Some(at(30)));
    spool.postpone(&anna(), at(50));
    let due_times = async |spool: &Spool| {
        let mut times = Vec::new();
        for id in &ids {
            times.push(spool.envelope(*id).await.unwrap().due);
        }
        times
    };
    let expected = [Some(at(50)), None, Some(at(30))];
    assert_eq!(due_times(&spool).await, expected);
    assert_eq!(due(&spool, at(49)).len(), 1, "bert's");
    // A change for another reason keeps the postponement, and makes it durable.
    let mut claim = spool.claim(ids[0]).await.unwrap();
    assert_eq!(claim.envelope().due, expected[0]);
    spool.postpone(&anna(), at(60));
    let reason = "another".into();
    claim.update(Envelope { reason, ..claim.envelope().clone() }).await.unwrap();
    drop(claim);
    assert_eq!(due_times(&spool).await, [Some(at(60)), None, Some(at(30))], "put off while it was in hand");
    drop(spool);
    let spool = open(home.path()).await;
    assert_eq!(due_times(&spool).await, [Some(at(50)), None, Some(at(30))], "memory alone had that");
    spool.postpone(&anna(), at(80));
    spool.write_due_times(&anna()).await.unwrap();
    drop(spool);
    let spool = open(home.path()).await;
    assert_eq!(due_times(&spool).await, [Some(at(80)), None, Some(at(30))]);
    let mut claim = spool.claim(ids[0]).await.unwrap();
    let started = releasing(claim.envelope(), Some(at(81)));
    claim.update(started).await.unwrap();
    spool.postpone(&anna(), at(90));
    spool.write_due_times(&anna()).await.unwrap();
    drop(claim);
    assert_eq!(due(&spool, at(81)), [(ids[0], State::Releasing), (ids[2], State::Parked)]);
    assert_eq!(due_times(&spool).await[0], Some(at(80)), "what was due once stays written");
}

/// What came, or was tried, while the clock was ahead waits as long as usual once it is back; nothing else changes.
#[tokio::test]
async fn due_times_from_the_future_are_brought_back() {
    let home = tempfile::tempdir().unwrap();
    let spool = open(home.path()).await;
    let base = clock::now();
    let at = |minutes: u64| base.after(Duration::from_secs(60 * minutes));
    const DAY: u64 = 24 * 60;
    let mut ids = Vec::new();
    for (parked, due) in [(0, Some(30)), (2 * DAY, Some(2 * DAY + 30)), (2 * DAY, None), (0, Some(30))] {
        let parking = spool.begin(&anna(), base).await.unwrap();
        let (due, parked) = (due.map(at), at(parked));
        let envelope = Envelope { due, parked, ..envelope(&parking, &anna()) };
        ids.push(parking.id());
        parking.commit(&envelope).await.unwrap();
    }
    let mut claim = spool.claim(ids[3]).await.unwrap();
    let started = releasing(claim.envelope(), Some(at(2 * DAY)));
    claim.update(started).await.unwrap();
    drop(claim);
    let due = async |spool: &Spool| {
        let mut times = Vec::new();
        for id in &ids {
            times.push(spool.envelope(*id).await.unwrap().due);
        }
        times
    };
    // Somebody has it in hand.
    let claim = spool.claim(ids[1]).await.unwrap();
    spool.bring_back(at(5));
    drop(claim);
    assert_eq!(due(&spool).await[1], Some(at(2 * DAY + 30)));
    for now in [10, 15, 39] {
        spool.bring_back(at(now));
        let expected = [Some(at(30)), Some(at(40)), None, Some(at(30))];
        assert_eq!(due(&spool).await, expected, "{now}");
    }
    let come = |minute| self::due(&spool, at(minute)).into_iter().map(|(id, _)| id).collect::<BTreeSet<_>>();
    assert_eq!(come(40), [ids[0], ids[1]].into());
    assert_eq!((come(64).len(), come(65)), (2, [ids[0], ids[1], ids[3]].into()), "an hour after it was seen");
    // On its way out, with the time that memory has.
    let mut claim = spool.claim(ids[1]).await.unwrap();
    let reason = "another".into();
    claim.update(Envelope { reason, ..claim.envelope().clone() }).await.unwrap();
    drop(claim);
    drop(spool);
    let spool = open(home.path()).await;
    assert_eq!(due(&spool).await[1], Some(at(40)));
    spool.bring_back(at(50));
    assert_eq!(due(&spool).await[1], Some(at(40)), "that was done already");
    spool.keep(&anna(), None).await.unwrap();
    assert_eq!(due(&spool).await[1], None);
}

#[tokio::test]
async fn a_newer_quarantine_is_refused_and_left_alone() {
    let home = tempfile::tempdir().unwrap();
    drop(open(home.path()).await);
    let path = home.path().join("quarantine/version");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n");
    for (text, part) in [
        (&b"2\n"[..], "version: the quarantine has version 2; this Gatepost knows up to 1"),
        (b"4294967295", "has version 4294967295;"),
        (b"", "no version in it"),
        (b"-1", "no version in it"),
        (b"\xff", "no version in it"),
    ] {
        std::fs::write(&path, text).unwrap();
        let Err(error) = Spool::open(home.path(), limits()).await else { panic!("{text:?} is opened") };
        assert!(error.to_string().contains(part), "{text:?}: {error}");
        assert_eq!(std::fs::read(&path).unwrap(), text);
    }
    std::fs::write(&path, "1").unwrap();
    drop(open(home.path()).await);
}
