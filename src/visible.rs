//! Which characters of text from outside are unsafe to show to people, in the log, on a terminal or in mail.

/// Whether a character could move the cursor, end the line, change the direction of writing or be invisible: control
/// characters, line and paragraph separators, directional and joining controls, zero-width spaces, soft hyphens, tags
/// (Unicode's Cc, Zl, Zp, Cf and the like).
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
