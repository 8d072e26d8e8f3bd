//! Mail logs.

use gatepost::clock::Timestamp;
use gatepost::guard::Rules;
use gatepost::guard::window::Count;
use gatepost::replay::attribution::Attribution;
use gatepost::replay::log::{Log, Replay};
use gatepost::replay::plot;
use gatepost::replay::report::Report;
use gatepost::replay::trial::{Grid, Trial};

use super::choice;

/// Whatever the log is, and however it comes: the same report, each line is counted, and no recipient comes out of nothing.
pub fn log(data: &[u8]) {
    let (size, data) = choice(data);
    let (json, lines, recipients) = replay(Pieces { data, size: usize::MAX });
    assert_eq!(replay(Pieces { data, size: 1 + size }).0, json);
    let ends = data.iter().filter(|octet| **octet == b'\n').count();
    assert_eq!(lines, (ends + usize::from(data.last().is_some_and(|last| *last != b'\n'))) as u64);
    assert!(recipients <= data.len() as u64, "{recipients} recipients");
}

/// The report in JSON, the lines, and the recipients in it.
fn replay(pieces: Pieces<'_>) -> (String, u64, u64) {
    let trial = Trial::new(
        Grid {
            limits: vec![1, 2, 100],
            period: std::time::Duration::from_secs(3_600),
            count: Count::Distinct,
            usual_shares: vec![0.05],
            thief_share: 0.30,
            threshold: 2.0,
            delay: std::time::Duration::from_secs(1_800),
        },
        None,
    );
    let relay_hosts = ["192.0.2.0/24".parse().unwrap()].to_vec();
    let mut replay = Replay::new(Rules::default(), Attribution::new(relay_hosts), trial, None, None);
    let mut logs = [Log::new(pieces, Timestamp::from_millis(1_795_536_328_123))];
    replay.read(&mut logs, |_, _| panic!("no fault"), |_| ());
    let (trial, reading, left_out) = replay.finish();
    let report = Report::of(&trial, reading, left_out, None);
    assert!(report.reading.used + report.reading.unreadable <= report.reading.lines);
    if let Some(svg) = plot::draw(&report) {
        assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN"));
    }
    let recipients = report.accepted + report.invalid + report.refused_otherwise;
    (serde_json::to_string(&report).unwrap(), report.reading.lines, recipients)
}

/// Gives out so many octets at a time.
struct Pieces<'a> {
    data: &'a [u8],
    size: usize,
}

impl std::io::Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let octets = self.size.min(buffer.len()).min(self.data.len());
        let (now, later) = self.data.split_at(octets);
        buffer[..octets].copy_from_slice(now);
        self.data = later;
        Ok(octets)
    }
}
