//! Text from outside, shown to people in the log, on a terminal or in mail: which characters are unsafe, and how a word
//! is quoted in a command that people copy. The only place that judges characters by that. And how they are told that a
//! file cannot be read.

use std::io;
use std::path::Path;

/// Whether a character could move the cursor, end the line, change the direction of writing or be invisible: control
/// characters, line and paragraph separators, directional and joining controls, zero-width spaces, soft hyphens, tags
/// (Unicode's Cc, Zl, Zp, Cf and the like).
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Whether all octets are printable ASCII. Nearly all text is, and then needs no look at each character.
#[inline(never)] // see "The code of a message" in docs/performance.md
pub fn is_printable_ascii(text: &[u8]) -> bool {
    // Without an early exit, which is quicker.
    text.iter().fold(true, |printable, octet| printable & matches!(octet, b' '..=b'~'))
}

/// The character, or `?` in place of an [unsafe](is_unsafe) one.
pub fn masked(c: char) -> char {
    if is_unsafe(c) { '?' } else { c }
}

/// Whether a character ends a line or could act on a terminal: less than [`is_unsafe`], for what is read by programs and
/// must stay as it is otherwise. An SMTPUTF8 address may need joining controls.
pub fn breaks_line(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Replaces each character that [breaks the line](breaks_line) by `?`.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if breaks_line(c) { '?' } else { c }).collect()
}

/// Quotes text as one word of a POSIX shell's command line, since people copy it. If a character is [unsafe](is_unsafe),
/// it is written as octets (`$'\342\200\256'`, POSIX.1-2024), so that the word can be both seen and copied. So are quotes
/// and backslashes then: for a shell that does not know `$'` (dash) it is another word, but still one.
pub fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./_-".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    if !text.contains(is_unsafe) {
        return format!("'{}'", text.replace('\'', r"'\''"));
    }
    let mut word = "$'".to_owned();
    for c in text.chars() {
        if is_unsafe(c) || matches!(c, '\'' | '\\') {
            // Always three digits, so that a digit behind it is not taken for part of it.
            word.extend(c.encode_utf8(&mut [0; 4]).bytes().map(|octet| format!("\\{octet:03o}")));
        } else {
            word.push(c);
        }
    }
    word.push('\'');
    word
}

/// Says that a file which the configuration names cannot be read, and what to do. It begins with the path, so that the
/// place in the configuration can be put in front of it.
pub fn unreadable(path: &Path, cause: &io::Error) -> String {
    let cure = match cause.kind() {
        io::ErrorKind::NotFound => "; is its path in the configuration right?",
        io::ErrorKind::PermissionDenied => "; let the user that Gatepost runs as read it",
        _ => "; is it a file, on a disk that works?",
    };
    format!("{}: {cause}{cure}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_copied_into_a_shell_is_one_word() {
        for (text, expected) in [
            ("user:anna@example.org", "user:anna@example.org"),
            ("host:2001:db8::", "host:2001:db8::"),
            ("user:$(reboot)", "'user:$(reboot)'"),
            ("user:a'b", r"'user:a'\''b'"),
            ("user:a\u{202e}1'\\", r"$'user:a\342\200\2561\047\134'"),
            ("\u{202e}';touch${IFS}x;#", r"$'\342\200\256\047;touch${IFS}x;#'"), // one word in dash, too
            ("", "''"),
        ] {
            assert_eq!(shell_word(text), expected);
        }
    }

    #[test]
    fn what_can_be_seen_is_shown() {
        for (text, expected) in [
            ("plain, größe 漢字 🙂 e\u{301}", false),
            ("\u{1b}", true),
            ("\u{7f}", true),
            ("\u{9b}", true), // CSI
            ("\t\r\n", true),
            ("\u{ad}\u{200b}\u{feff}", true),
            ("\u{61c}\u{200e}\u{202e}\u{2066}\u{2069}", true),
            ("\u{2028}\u{2029}", true),
            ("\u{e0041}", true),
        ] {
            assert!(text.chars().all(|c| is_unsafe(c) == expected), "{text:?}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_told_with_a_cure() {
        for (kind, expected) in [
            (io::ErrorKind::NotFound, "/a b: entity not found; is its path in the configuration right?"),
            (
                io::ErrorKind::PermissionDenied,
                "/a b: permission denied; let the user that Gatepost runs as read it",
            ),
            (io::ErrorKind::IsADirectory, "/a b: is a directory; is it a file, on a disk that works?"),
        ] {
            assert_eq!(unreadable(Path::new("/a b"), &kind.into()), expected);
        }
    }

    #[test]
    fn an_address_keeps_what_it_needs() {
        let text = "a\u{200d}b\u{202e}\r\n\u{2028}c";
        assert_eq!(one_line(text), "a\u{200d}b\u{202e}???c");
        assert_eq!(text.chars().map(masked).collect::<String>(), "a?b????c");
    }
}
