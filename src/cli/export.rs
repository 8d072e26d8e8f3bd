//! `gatepost quarantine export`: evidence. For each message it writes `ID.eml`, octet for octet as it arrived,
//! `ID.json` with envelope and session, and a line for each in `SHA256SUMS`, which `sha256sum -c` checks.
//!
//! Existing files are never overwritten with other content. A message whose octets are not those that arrived is
//! refused, since it is not evidence. Files of an unreadable message are written as they are, the envelope as
//! `ID.envelope`, and it is reported as a failure all the same.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;

use super::Format;
use super::gate::Gate;
use super::output::{self, Failed};
use super::show::{Found, find};
use crate::config::Config;
use crate::control::api::{Entry, Part, Purpose};
use crate::durable::{self, Existing, Folder};
use crate::id::QuarantineId;
use crate::quarantine::Envelope;
use crate::quarantine::checksum::{Altered, Checksum};

/// The file name of the manifest.
const MANIFEST: &str = "SHA256SUMS";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Ids, or the queue ids that the clients were told
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    /// The folder; made, for your eyes only, where it is not there
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    format: Format,
}

/// What was written of one message.
#[derive(Serialize)]
struct Exported {
    id: QuarantineId,
    /// `None` if it is missing; likewise the envelope.
    message: Option<PathBuf>,
    envelope: Option<PathBuf>,
    size: u64,
    sha256: Option<String>,
    /// Why the message is unreadable.
    unreadable: Option<String>,
}

pub(super) async fn run(arguments: &Arguments, config: &Config) -> Result<(), Failed> {
    // Evidence is whole, whether or not somebody reads what is said of it.
    let mut output = arguments.format.output().going_on();
    let mut gate = Gate::open_to_look(config, &mut output).await?;
    durable::create_folder(&arguments.output).map_err(|error| {
        Failed::because(format!("{error}; name a folder that can be written to with --output"))
    })?;
    let folder = Folder::open(&arguments.output).map_err(|error| Failed::because(error.to_string()))?;
    let folder = Arc::new(folder);
    let mut verdict = Ok(());
    for id in &arguments.ids {
        let exported = match export(&mut gate, id, &folder).await {
            Ok(exported) => exported,
            Err(Failed::Because(why)) => {
                output::complain(&why);
                verdict = Err(Failed::Told);
                continue;
            }
            Err(Failed::Told) => {
                verdict = Err(Failed::Told);
                continue;
            }
            Err(gone) => return Err(gone),
        };
        if output.is_json() {
            output.object(&exported)?;
        } else {
            let file = exported.message.as_ref().or(exported.envelope.as_ref());
            let file = file.map(|file| file.display().to_string()).unwrap_or_default();
            output.line(&format!("{}: {file}", exported.id))?;
        }
        // So that nobody takes it for a message as it arrived.
        if let Some(why) = &exported.unreadable {
            output::complain(&format!("message {}: {why}; its files were exported as they are", exported.id));
            verdict = Err(Failed::Told);
        }
    }
    gate.close().await;
    output.end()?;
    verdict
}

async fn export(gate: &mut Gate, id: &str, folder: &Arc<Folder>) -> Result<Exported, Failed> {
    match find(gate, id, Purpose::Export).await? {
        Found::Envelope(envelope) => export_message(gate, &envelope, folder).await,
        Found::Unreadable(entry) => export_as_it_is(gate, &entry, folder).await,
    }
}

async fn export_message(
    gate: &mut Gate,
    envelope: &Envelope,
    folder: &Arc<Folder>,
) -> Result<Exported, Failed> {
    let id = envelope.id;
    let (message, text) = (format!("{id}.eml"), format!("{id}.json"));
    let (file, checksum) = receive(gate, id, Part::Message, folder).await?;
    Altered::check(id, &checksum, &envelope.sha256)
        .map_err(|altered| Failed::because(altered.to_string()))?;
    let sha256 = checksum.to_string();
    keep(file, folder, &message, &sha256)?;
    let mut json = serde_json::to_vec_pretty(envelope).map_err(|error| Failed::because(error.to_string()))?;
    json.push(b'\n');
    let of_envelope = Checksum::of(&json).to_string();
    let mut file = folder.temporary().map_err(|error| Failed::because(error.to_string()))?;
    file.write(&json).map_err(|error| Failed::because(error.to_string()))?;
    keep(file, folder, &text, &of_envelope)?;
    note(folder, [(message.clone(), sha256.clone()), (text.clone(), of_envelope)])?;
    let path = folder.path();
    Ok(Exported {
        id,
        message: Some(path.join(message)),
        envelope: Some(path.join(text)),
        size: envelope.size,
        sha256: Some(sha256),
        unreadable: None,
    })
}

/// Exports the files of an unreadable message, as far as they exist.
async fn export_as_it_is(gate: &mut Gate, entry: &Entry, folder: &Arc<Folder>) -> Result<Exported, Failed> {
    let id = entry.id;
    let mut written = Vec::new();
    for (part, name) in [(Part::Message, format!("{id}.eml")), (Part::Envelope, format!("{id}.envelope"))] {
        match receive(gate, id, part, folder).await {
            Ok((file, checksum)) => {
                let sha256 = checksum.to_string();
                keep(file, folder, &name, &sha256)?;
                written.push((name, sha256));
            }
            Err(Failed::Because(why)) => output::warn(&why),
            Err(other) => return Err(other),
        }
    }
    if written.is_empty() {
        return Err(Failed::because(format!(
            "message {id}: {}; nothing of it can be exported",
            entry.reason
        )));
    }
    note(folder, written.iter().cloned())?;
    let find = |end: &str| written.iter().find(|(name, _)| name.ends_with(end));
    let path = |(name, _): &(String, String)| folder.path().join(name);
    Ok(Exported {
        id,
        message: find(".eml").map(path),
        envelope: find(".envelope").map(path),
        size: entry.size,
        sha256: find(".eml").map(|(_, sha256)| sha256.clone()),
        unreadable: Some(entry.reason.clone()),
    })
}

/// Streams a file to disk; returns its hash.
async fn receive(
    gate: &mut Gate,
    id: QuarantineId,
    part: Part,
    folder: &Arc<Folder>,
) -> Result<(durable::Temporary, Checksum), Failed> {
    let mut octets = gate.message(&id.to_string(), part, Purpose::Export).await?;
    let mut file = folder.temporary().map_err(|error| Failed::because(error.to_string()))?;
    let mut checksum = Checksum::default();
    while let Some(piece) = octets.recv().await {
        let piece = piece.map_err(Failed::because)?;
        checksum.update(&piece);
        file.write(&piece).map_err(|error| Failed::because(error.to_string()))?;
    }
    Ok((file, checksum))
}

/// Moves a file to its name, unless a file with other content has it.
fn keep(file: durable::Temporary, folder: &Arc<Folder>, name: &str, sha256: &str) -> Result<(), Failed> {
    let path = folder.path().join(name);
    if path.exists() {
        let there =
            hash_file(&path).map_err(|error| Failed::because(format!("{}: {error}", path.display())))?;
        if there == sha256 {
            return Ok(());
        }
        return Err(Failed::because(format!(
            "{} is there already, with other content; export to another folder",
            path.display()
        )));
    }
    file.sync()
        .and_then(|file| file.rename(name, Existing::Keep))
        .and_then(|()| folder.sync())
        .map_err(|error| Failed::because(error.to_string()))
}

/// Adds lines to the manifest; those of other files stay, and so do those in a form that is not ours.
fn note(folder: &Arc<Folder>, sums: impl IntoIterator<Item = (String, String)>) -> Result<(), Failed> {
    let path = folder.path().join(MANIFEST);
    // Locked until the end of this function, so that two exports into one folder keep each other's lines.
    let wrong = |error: io::Error| Failed::because(format!("{}: {error}", folder.path().display()));
    let lock = File::open(folder.path()).map_err(wrong)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|error| wrong(error.into()))?;
    let before = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Failed::because(format!("{}: {error}", path.display()))),
    };
    folder
        .write(MANIFEST, manifest(&before, sums).as_bytes())
        .map_err(|error| Failed::because(error.to_string()))
}

fn manifest(before: &str, sums: impl IntoIterator<Item = (String, String)>) -> String {
    let mut foreign = String::new();
    let mut lines: BTreeMap<String, String> = BTreeMap::new();
    for line in before.lines() {
        match line.split_once("  ").filter(|(sum, _)| sum.bytes().all(|octet| octet.is_ascii_hexdigit())) {
            Some((sum, name)) => drop(lines.insert(name.to_owned(), sum.to_owned())),
            None => foreign.extend([line, "\n"]),
        }
    }
    lines.extend(sums);
    lines.into_iter().fold(foreign, |text, (name, sum)| text + &format!("{sum}  {name}\n"))
}

fn hash_file(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut checksum = Checksum::default();
    let mut piece = vec![0; 64 * 1024];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(checksum.to_string()),
            length => checksum.update(piece.get(..length).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Arc<Folder>) {
        let folder = tempfile::tempdir().unwrap();
        let open = Arc::new(Folder::open(folder.path()).unwrap());
        (folder, open)
    }

    fn put(folder: &Arc<Folder>, content: &[u8]) -> Result<(), Failed> {
        let mut file = folder.temporary().unwrap();
        file.write(content).unwrap();
        keep(file, folder, "a.eml", &Checksum::of(content).to_string())
    }

    #[test]
    fn the_same_again_is_fine_and_something_else_is_not() {
        let (path, folder) = folder();
        put(&folder, b"one").unwrap();
        put(&folder, b"one").unwrap();
        assert!(matches!(put(&folder, b"two"), Err(Failed::Because(why)) if why.contains("other content")));
        assert_eq!(std::fs::read(path.path().join("a.eml")).unwrap(), b"one");
        assert_eq!(std::fs::read_dir(path.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn the_manifest_grows() {
        let sums = |name: &str| {
            [(format!("{name}.eml"), "aa".to_owned()), (format!("{name}.json"), "bb".to_owned())]
        };
        let once = manifest("", sums("1"));
        assert_eq!(once, "aa  1.eml\nbb  1.json\n");
        assert_eq!(manifest(&once, sums("1")), once);
        assert_eq!(manifest(&once, sums("2")), "aa  1.eml\nbb  1.json\naa  2.eml\nbb  2.json\n");
        let foreign = "# of 2026\ncc *disk.img\nSHA256 (a  b) = dd\n";
        assert_eq!(
            manifest(&format!("aa  x\n{foreign}"), sums("1")),
            format!("{foreign}aa  1.eml\nbb  1.json\naa  x\n")
        );
    }

    #[test]
    fn sha256sum_agrees() {
        let (path, folder) = folder();
        put(&folder, b"one").unwrap();
        let sum = hash_file(&path.path().join("a.eml")).unwrap();
        note(&folder, [("a.eml".to_owned(), sum.clone()), ("b.json".to_owned(), sum)]).unwrap();
        std::fs::copy(path.path().join("a.eml"), path.path().join("b.json")).unwrap();
        let checked = std::process::Command::new("sha256sum")
            .args(["-c", MANIFEST])
            .current_dir(path.path())
            .output()
            .unwrap();
        assert!(checked.status.success(), "{checked:?}");
    }

    #[test]
    fn exports_at_once_keep_each_others_lines() {
        let home = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..40).map(|number| format!("{number:02}.eml")).collect();
        std::thread::scope(|scope| {
            for name in &names {
                let folder = Arc::new(Folder::open(home.path()).unwrap());
                scope.spawn(move || note(&folder, [(name.clone(), "0".to_owned())]).unwrap());
            }
        });
        let noted = std::fs::read_to_string(home.path().join(MANIFEST)).unwrap();
        assert_eq!(noted, names.iter().map(|name| format!("0  {name}\n")).collect::<String>());
    }
}
