//! What the fuzz targets do with an input, whatever it is: they panic where a promise is broken.
//!
//! `tests/corpus.rs` does the same with what stands in `tests/corpus/`, one folder a target.

mod conversation;
mod front;
mod logs;
mod mail;
mod text;
mod words;

pub use conversation::{sasl, session};
pub use front::{newline, proxy};
pub use logs::log;
pub use mail::{header, mail_data, stuffing};
pub use text::{config, envelope, users};
pub use words::{classify, command, line, mimicry, path, reply};

/// A target.
pub type Target = fn(&[u8]);

/// All of them, by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("line", line),
    ("command", command),
    ("path", path),
    ("reply", reply),
    ("classify", classify),
    ("mimicry", mimicry),
    ("mail_data", mail_data),
    ("stuffing", stuffing),
    ("header", header),
    ("envelope", envelope),
    ("config", config),
    ("users", users),
    ("session", session),
    ("sasl", sasl),
    ("proxy", proxy),
    ("newline", newline),
    ("log", log),
];

/// The first octet decides (where to cut, which limit), the rest is the input.
fn choice(data: &[u8]) -> (usize, &[u8]) {
    data.split_first().map_or((0, data), |(first, rest)| (usize::from(*first), rest))
}

/// The input in pieces of so many octets; of 0: in one.
fn pieces(data: &[u8], size: usize) -> impl Iterator<Item = &[u8]> {
    data.chunks(if size == 0 { data.len().max(1) } else { size })
}
