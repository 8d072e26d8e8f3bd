//! What stands in front of a session and what is mended in a message.

use gatepost::net::proxy::{Progress, examine};
use gatepost::smtp::newline::Normalizer;

use super::{choice, pieces};

/// A PROXY header is read by as many octets as it asks for, never one too many, and comes to an end.
pub fn proxy(data: &[u8]) {
    let mut read = 0;
    loop {
        match examine(&data[..read]) {
            Progress::More(count) => {
                assert!((1..=4_096).contains(&count), "{count} more");
                read += count;
                if read > data.len() {
                    return;
                }
            }
            Progress::Complete(_) => {
                assert!(read >= 15, "complete with {read} octets");
                return;
            }
            Progress::Broken(_) => return,
        }
    }
}

/// What comes out has no bare LF, whatever the split, and nothing but CRs was added.
pub fn newline(data: &[u8]) {
    let (size, data) = choice(data);
    let mended = |size| {
        let (mut normalizer, mut out) = (Normalizer::default(), Vec::new());
        pieces(data, size).for_each(|piece| normalizer.push(piece, &mut out));
        out
    };
    let out = mended(size);
    assert_eq!(out, mended(0));
    assert!(out.iter().enumerate().all(|(at, octet)| *octet != b'\n' || at > 0 && out[at - 1] == b'\r'));
    let without = |octets: &[u8]| octets.iter().copied().filter(|octet| *octet != b'\r').collect::<Vec<_>>();
    assert_eq!(without(&out), without(data));
    // In the chain that it stands in.
    let _ = super::mail::mended(data, size);
    let _ = super::mail::mended(&[data, b"\r\n.\r\n"].concat(), size);
}
