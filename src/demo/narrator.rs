//! Tells the story: plain text of at most 88 columns, with some bold on a terminal.

use std::io::{self, IsTerminal, Write};

use crate::visible::masked;

/// The widest line of a paragraph.
const WIDTH: usize = 88;
/// The width of a label.
const LABEL: usize = 23;
/// The widest line of quoted program output.
const QUOTED: usize = 96;

/// Flushes after every call, so that text appears as things happen.
pub(super) struct Narrator<W> {
    out: W,
    bold: bool,
}

impl Narrator<io::Stdout> {
    /// Writes to standard output.
    pub(super) fn to_stdout() -> Self {
        let out = io::stdout();
        let bold = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { out, bold }
    }
}

impl<W: Write> Narrator<W> {
    /// Writes a heading.
    pub(super) fn chapter(&mut self, title: &str) -> io::Result<()> {
        let rule = "-".repeat(title.chars().count());
        if self.bold {
            writeln!(self.out, "\n\x1b[1m{title}\x1b[0m\n{rule}")?;
        } else {
            writeln!(self.out, "\n{title}\n{rule}")?;
        }
        self.out.flush()
    }

    /// Writes a paragraph, filled.
    pub(super) fn say(&mut self, text: &str) -> io::Result<()> {
        for line in fill(text, WIDTH) {
            writeln!(self.out, "{line}")?;
        }
        self.out.flush()
    }

    /// Writes an empty line.
    pub(super) fn pause(&mut self) -> io::Result<()> {
        writeln!(self.out)
    }

    /// Writes one line as it is, indented.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "    {text}")?;
        self.out.flush()
    }

    /// Writes a label with a text filled beside it.
    pub(super) fn entry(&mut self, label: &str, text: &str) -> io::Result<()> {
        let mut label = label;
        for line in fill(text, WIDTH - 4 - LABEL) {
            writeln!(self.out, "    {label:<LABEL$}{line}")?;
            label = "";
        }
        self.out.flush()
    }

    /// Writes in full what a program or mail says.
    pub(super) fn quote(&mut self, text: &str) -> io::Result<()> {
        for line in text.trim_end().lines() {
            writeln!(self.out, "{}", format!("  | {}", clean(line)).trim_end())?;
        }
        self.out.flush()
    }

    /// Writes a command as one would type it.
    pub(super) fn command(&mut self, command: &str) -> io::Result<()> {
        writeln!(self.out, "  $ {command}")?;
        self.out.flush()
    }

    /// Writes the output of a command: long lines of a table are cut, others are continued on the next line.
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

/// Replaces characters that would affect a terminal.
fn clean(text: &str) -> String {
    text.trim_end().chars().map(|c| if c == '\t' { c } else { masked(c) }).collect()
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
