//! Turns bare LF into CRLF, for senders that do not know better: printers, scripts.
//!
//! A LF without a CR before it becomes CRLF; nothing else changes. The result has no bare LF, and an end of data is not
//! looked for again in it. RFC 5321 2.3.8 (which forbids what this mends).

use memchr::memchr_iter;

/// Mends newlines, however the content is split.
#[derive(Debug, Default)]
pub struct Normalizer {
    after_cr: bool,
}

impl Normalizer {
    /// Appends `content` to `out`, mended.
    pub fn push(&mut self, content: &[u8], out: &mut Vec<u8>) {
        let Some(last) = content.last() else { return };
        out.reserve(content.len());
        let mut copied = 0;
        for lf in memchr_iter(b'\n', content) {
            let follows_cr = match lf.checked_sub(1) {
                Some(before) => content[before] == b'\r',
                None => self.after_cr,
            };
            if !follows_cr {
                out.extend_from_slice(&content[copied..lf]);
                out.push(b'\r');
                copied = lf;
            }
        }
        out.extend_from_slice(&content[copied..]);
        self.after_cr = *last == b'\r';
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mended(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut normalizer, mut out) = (Normalizer::default(), Vec::new());
        pieces.iter().for_each(|piece| normalizer.push(piece, &mut out));
        out
    }

    #[test]
    fn newlines() {
        for (content, expected) in [
            ("", ""),
            ("a\nb\n", "a\r\nb\r\n"),
            ("a\r\nb\r\n", "a\r\nb\r\n"),
            ("\n\n.\n", "\r\n\r\n.\r\n"),
            ("a\n\rb", "a\r\n\rb"), // a bare CR stays, and makes the message one that is refused
            ("\r\r\n", "\r\r\n"),
        ] {
            assert_eq!(
                mended(&[content.as_bytes()]).escape_ascii().to_string(),
                expected.escape_default().to_string()
            );
        }
    }

    proptest! {
        #[test]
        fn any_split_mends_the_same(content in "[ab\r\n.]{0,40}", cuts: Vec<prop::sample::Index>) {
            let content = content.as_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(content.len() + 1)).collect();
            cuts.extend([0, content.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &content[cut[0]..cut[1]]).collect();
            let once = mended(&[content]);
            prop_assert_eq!(&mended(&pieces), &once);
            prop_assert_eq!(&mended(&[&once]), &once);
            let bare = once.iter().enumerate().any(|(at, octet)| *octet == b'\n' && (at == 0 || once[at - 1] != b'\r'));
            prop_assert!(!bare);
        }
    }
}
