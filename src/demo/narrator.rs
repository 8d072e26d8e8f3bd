//! Tells the story: plain text of at most 88 columns to a writer, a little bold on a terminal.

use std::io::{self, IsTerminal, Write};

use crate::visible::is_unsafe;

/// The widest line of a paragraph.
const WIDTH: usize = 88;
/// The columns of a label.
const LABEL: usize = 23;
/// The widest line of what a program printed.
const QUOTED: usize = 96;

/// Writes as it happens: every call is flushed.
pub(super) struct Narrator<W> {
    out: W,
    bold: bool,
}

impl Narrator<io::Stdout> {
    /// To standard output.
    pub(super) fn to_stdout() -> Self {
        let out = io::stdout();
        let bold = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { out, bold }
    }
}

impl<W: Write> Narrator<W> {
    /// A heading.
    pub(super) fn chapter(&mut self, title: &str) -> io::Result<()> {
        let rule = "-".repeat(title.chars().count());
        if self.bold {
            writeln!(self.out, "\n\x1b[1m{title}\x1b[0m\n{rule}")?;
        } else {
            writeln!(self.out, "\n{title}\n{rule}")?;
        }
        self.out.flush()
    }

    /// A paragraph, filled.
    pub(super) fn say(&mut self, text: &str) -> io::Result<()> {
        for line in fill(text, WIDTH) {
            writeln!(self.out, "{line}")?;
        }
        self.out.flush()
    }

    /// An empty line.
    pub(super) fn pause(&mut self) -> io::Result<()> {
        writeln!(self.out)
    }

    /// One line as it is, indented.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "    {text}")?;
        self.out.flush()
    }

    /// A label and what belongs to it, which is filled beside it.
    pub(super) fn entry(&mut self, label: &str, text: &str) -> io::Result<()> {
        let mut label = label;
        for line in fill(text, WIDTH - 4 - LABEL) {
            writeln!(self.out, "    {label:<LABEL$}{line}")?;
            label = "";
        }
        self.out.flush()
    }

    /// What a program or a mail says, in full.
    pub(super) fn quote(&mut self, text: &str) -> io::Result<()> {
        for line in text.trim_end().lines() {
            writeln!(self.out, "{}", format!("  | {}", clean(line)).trim_end())?;
        }
        self.out.flush()
    }

    /// A command as one would type it.
    pub(super) fn command(&mut self, command: &str) -> io::Result<()> {
        writeln!(self.out, "  $ {command}")?;
        self.out.flush()
    }

    /// What a command printed: of long lines, those of a table are cut, all others go on in the next.
    pub(super) fn output(&mut self, text: &str) -> io::Result<()> {
        for line in text.lines() {
            for line in fit(&clean(line)) {
                writeln!(self.out, "{}", format!("    {line}").trim_end())?;
            }
        }
        self.out.flush()
    }
}

fn fit(line: &str) -> Vec<String> {
    match line.char_indices().nth(QUOTED) {
        None => vec![line.to_owned()],
        Some((end, _)) if line.contains("  ") => vec![format!("{}...", &line[..end])],
        Some(_) => fill(line, WIDTH),
    }
}

/// What is unsafe to show would do something to a terminal.
fn clean(text: &str) -> String {
    text.trim_end().chars().map(|c| if is_unsafe(c) && c != '\t' { '?' } else { c }).collect()
}

fn fill(text: &str, most: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let width = |line: &str| line.chars().count();
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if width(line) + 1 + width(word) <= most => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written() {
        let mut narrator = Narrator { out: Vec::new(), bold: false };
        narrator.chapter("One").unwrap();
        narrator.say(&"word ".repeat(30)).unwrap();
        narrator.quote("a\n\x1b[2Jb\n").unwrap();
        narrator.output(&format!("\n{}\n{}", "a  ".repeat(40), "word ".repeat(30))).unwrap();
        narrator.entry("label", &"word ".repeat(20)).unwrap();
        let words = |count| vec!["word"; count].join(" ");
        let expected = [
            format!("\nOne\n---\n{}\n{}\n  | a\n  | ?[2Jb\n", words(17), words(13)),
            format!("\n    {}...\n    {}\n    {}\n", "a  ".repeat(32), words(17), words(13)),
            format!("    {:<23}{}\n    {:<23}{}\n", "label", words(12), "", words(8)),
        ];
        assert_eq!(String::from_utf8(narrator.out).unwrap(), expected.concat());
    }
}
