//! A disk that fills up: mail is refused before it is full, and what is parked stays whole.

use super::*;

/// A small tmpfs, unmounted at the end.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount(mib: u64) -> Self {
        Self::mount_with(&format!("size={mib}m"))
    }

    fn mount_with(options: &str) -> Self {
        let place = tempfile::tempdir().unwrap();
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "gatepost-test"])
            .arg(place.path())
            .status();
        assert!(mount.unwrap().success(), "mount needs root");
        Self(place)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn free(path: &Path) -> u64 {
    let found = rustix::fs::statvfs(path).unwrap();
    found.f_bavail * found.f_frsize
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "mounts a tmpfs: needs root"]
async fn refused_before_the_disk_is_full() {
    const MIB: usize = 1024 * 1024;
    let disk = Disk::mount(64);
    let home = disk.0.path();
    let spool = open(home).await;
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let spool = spool.clone();
            tokio::spawn(async move { park_as(&spool, &anna(), &vec![b'x'; 5 * MIB]).await })
        })
        .collect();
    let mut parked = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            Ok(id) => parked.push(id),
            Err(error) => assert!(matches!(&error, ParkError::Full(_)), "{error}"),
        }
    }
    while let Ok(id) = park_as(&spool, &anna(), &vec![b'x'; 3 * MIB]).await {
        parked.push(id);
    }
    while let Ok(id) = park_as(&spool, &anna(), &vec![b'x'; BUFFER]).await {
        parked.push(id);
    }
    eventually(|| names(home).len() == 2 * parked.len()).await;
    assert!(free(home) >= 15 * MIB as u64, "{}", free(home));
    assert!(parked.len() > 8, "{}", parked.len());
    spool.remove(parked.remove(0)).await.unwrap();
    parked.push(park_as(&spool, &anna(), &[b'x'; BUFFER]).await.unwrap());
    drop(spool);
    let spool = open(home).await;
    for id in &parked {
        let envelope = spool.envelope(*id).await.unwrap();
        assert_eq!(sha256(&content(spool.message(*id).await.unwrap()).await), envelope.sha256);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "mounts a tmpfs: needs root"]
async fn somebody_else_fills_the_disk() {
    let disk = Disk::mount(64);
    let home = disk.0.path();
    let spool = open(home).await;
    let kept = park(&spool, b"kept").await;
    let mut small = spool.begin(&anna(), clock::now()).await.unwrap();
    small.write(&[b'x'; BUFFER - 1]).await.unwrap();
    let mut big = spool.begin(&anna(), clock::now()).await.unwrap();
    big.write(&vec![b'x'; 3 * BUFFER]).await.unwrap();
    let mut other = std::fs::File::create(home.join("other")).unwrap();
    while std::io::Write::write_all(&mut other, &[0; 4096]).is_ok() {}
    assert!(matches!(spool.room(&anna(), 0), Err(ParkError::Full(_))));
    assert!(matches!(spool.begin(&anna(), clock::now()).await.map(drop), Err(ParkError::Full(_))));
    let envelopes = (envelope(&small, &anna()), envelope(&big, &anna()));
    let unparked = small.commit(&envelopes.0).await.unwrap_err();
    assert!(matches!(unparked.error, ParkError::Full(_)));
    assert_eq!(salvaged(unparked.content.unwrap()).await, [b'x'; BUFFER - 1]);
    let error = big.write(&vec![b'x'; 4 * BUFFER]).await.unwrap_err();
    assert!(matches!(&error, ParkError::Full(_)), "{error}");
    assert_eq!(big.write(b"x").await, Err(error.clone()));
    let unparked = big.commit(&envelopes.1).await.unwrap_err();
    assert_eq!(unparked.error, error);
    assert_eq!(salvaged(unparked.content.unwrap()).await, [b'x'; 3 * BUFFER]);
    let mut claim = spool.claim(kept).await.unwrap();
    let old = claim.envelope().clone();
    while std::io::Write::write_all(&mut other, &[0; 4096]).is_ok() {}
    assert!(matches!(claim.update(releasing(&old, None)).await, Err(SpoolError::Io(_))));
    assert_eq!(spool.envelope(kept).await.unwrap(), old);
    eventually(|| names(home) == pair(kept).into()).await;
    drop(other);
    std::fs::remove_file(home.join("other")).unwrap();
    claim.finish().await.unwrap();
    park(&spool, b"goes on").await;
}

/// The outbox and the list of blocks need inodes as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "mounts a tmpfs: needs root"]
async fn refused_before_the_inodes_are_used_up() {
    let disk = Disk::mount_with("size=64m,nr_inodes=1000");
    let home = disk.0.path();
    let spool = open(home).await;
    let tasks = (0..700).map(|_| {
        let spool = spool.clone();
        tokio::spawn(async move { park_as(&spool, &anna(), b"").await })
    });
    let mut parked = 0;
    for task in tasks.collect::<Vec<_>>() {
        match task.await.unwrap() {
            Ok(_) => parked += 1,
            Err(error) => assert!(error.to_string().ends_with("too few inodes left"), "{error}"),
        }
    }
    while park_as(&spool, &anna(), b"").await.is_ok() {
        parked += 1;
    }
    let left = rustix::fs::statvfs(home).unwrap().f_favail;
    assert!((10..=12).contains(&left), "{left} left");
    assert!(parked > 450, "{parked}");
    assert!(spool.room(&anna(), 0).unwrap_err().to_string().contains("inodes"));
    spool.remove(spool.ids(None)[0]).await.unwrap();
    park(&spool, b"goes on").await;
}
