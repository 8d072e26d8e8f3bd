//! How many messages a second are parked, compared with what the disk can do at all; and the cost of a full quarantine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::*;
use crate::durable::Folder;

const MEASURED: Duration = Duration::from_secs(3);
const CONTENT: [u8; 4096] = [b'x'; 4096];

/// Writes new files of 4 KiB, each fsynced, one after the other.
fn fsyncs(home: &Path) -> f64 {
    let folder = Arc::new(Folder::open(home).unwrap());
    let (begun, mut files) = (Instant::now(), Vec::new());
    while begun.elapsed() < MEASURED {
        let mut file = folder.temporary().unwrap();
        file.write(&CONTENT).unwrap();
        files.push(file.sync().unwrap());
    }
    files.len() as f64 / begun.elapsed().as_secs_f64()
}

async fn parked(spool: &Spool, parkers: usize) -> f64 {
    let (begun, count) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let tasks: Vec<_> = (0..parkers)
        .map(|_| {
            let (spool, count) = (spool.clone(), Arc::clone(&count));
            tokio::spawn(async move {
                while begun.elapsed() < MEASURED {
                    park(&spool, &CONTENT).await;
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    count.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures: wants a disk to itself"]
async fn parkers_share_fsyncs() {
    let (home, spool) = spool().await;
    let fsyncs = fsyncs(home.path());
    let (one, many) = (parked(&spool, 1).await, parked(&spool, 32).await);
    eprintln!("{fsyncs:.0} fsyncs of a new file a second; parked a second: {one:.0} by one, {many:.0} by 32");
    assert!(many >= one, "{many:.0} by 32, {one:.0} by one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes 100,000 messages"]
async fn a_big_quarantine_opens_within_seconds() {
    let (home, spool) = spool().await;
    drop(spool);
    let base = clock::now();
    for place in 0..100_000 {
        let id = QuarantineId::new(base.after(Duration::from_millis(place)));
        let text = sample::envelope(id, b"").encode().unwrap();
        std::fs::write(folder(home.path()).join(files::envelope_name(id)), text).unwrap();
        std::fs::write(folder(home.path()).join(files::message_name(id)), b"").unwrap();
    }
    let before = resident();
    let begun = Instant::now();
    let spool = open(home.path()).await;
    let took = begun.elapsed();
    let kib = resident().saturating_sub(before) / 1024;
    eprintln!("opened 100,000 messages in {took:.1?}, {kib} KiB resident more");
    assert_eq!(spool.usage(None).messages, 100_000);
    assert!(took < DEADLINE && kib < 100 * 1024, "{took:?}, {kib} KiB");
    let begun = Instant::now();
    let last = spool.ids(None)[99_899];
    assert_eq!(spool.list(&Filter::default(), Some(last), 1000).await.len(), 100);
    eprintln!("the last page took {:.1?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "looks at the memory of the whole process: wants it to itself"]
async fn a_big_message_costs_no_more_memory_than_a_small_one() {
    let (_home, spool) = spool().await;
    let piece = vec![b'x'; 32 * 1024];
    park(&spool, &piece).await;
    let before = resident();
    let mut parking = spool.begin(&anna(), clock::now()).await.unwrap();
    let mut most = 0;
    for _ in 0..1600 {
        parking.write(&piece).await.unwrap();
        most = most.max(resident().saturating_sub(before));
    }
    let (id, envelope) = (parking.id(), envelope(&parking, &anna()));
    parking.commit(&envelope).await.unwrap();
    let mut reader = spool.message(id).await.unwrap();
    let (mut buffer, mut read) = (vec![0; 64 * 1024], 0);
    loop {
        let octets = reader.read(&mut buffer).await.unwrap();
        if octets == 0 {
            break;
        }
        read += octets;
        most = most.max(resident().saturating_sub(before));
    }
    eprintln!("{read} octets, at most {} KiB resident more", most / 1024);
    assert_eq!(read, 1600 * piece.len());
    assert!(most < 1024 * 1024, "{most}");
}

/// Returns how many octets of this process are in memory (Linux).
fn resident() -> u64 {
    let found = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = found.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
