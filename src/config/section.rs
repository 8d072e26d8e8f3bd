//! One table of the file as written: reads its keys one by one and notes what is wrong with each.
//!
//! Reading goes on after a problem, with the default in place of the key, so that all problems are found at once.
//! Reading a key makes it known; every other key is unknown. Where a key names a file, its place is kept for errors
//! about that file.

use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::named::NamedFile;
use super::problem::Problem;
use super::value;
use crate::units;
use crate::visible::is_unsafe;

/// The most characters of a value that a problem quotes.
const SHOWN: usize = 60;

/// A key that a table can have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// `""`, `[limit]`, `[[listen]]`
    pub(super) table: &'static str,
    /// Its name.
    pub(super) name: &'static str,
}

/// A key that is written but that nobody read.
#[derive(Debug)]
pub(super) struct Leftover {
    pub(super) line: usize,
    pub(super) table: &'static str,
    pub(super) name: String,
    pub(super) is_table: bool,
}

/// What was found in a file.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    pub(super) keys: Vec<Key>,
    pub(super) leftovers: Vec<Leftover>,
    pub(super) files: Vec<NamedFile>,
}

/// A table of the file; if it is absent, every key has its default.
#[derive(Debug)]
pub(super) struct Section<'a> {
    text: &'a str,
    /// The folder of the configuration file; relative paths are relative to it.
    folder: &'a Path,
    title: &'static str,
    table: Option<&'a DeTable<'a>>,
    /// The offset at which the table begins.
    start: usize,
    asked: Vec<&'static str>,
    unsound: Vec<&'static str>,
    problems: Vec<Problem>,
    files: Vec<NamedFile>,
    /// The findings of the tables within this one.
    inner: Findings,
}

/// What a value should have been.
pub(super) type Remedy = String;

impl<'a> Section<'a> {
    /// The top of the file: the keys that belong to no table.
    pub(super) fn top(text: &'a str, folder: &'a Path, table: &'a DeTable<'a>) -> Self {
        Self::new(text, folder, "", Some(table), 0)
    }

    fn new(
        text: &'a str,
        folder: &'a Path,
        title: &'static str,
        table: Option<&'a DeTable<'a>>,
        start: usize,
    ) -> Self {
        Self {
            text,
            folder,
            title,
            table,
            start,
            asked: Vec::new(),
            unsound: Vec::new(),
            problems: Vec::new(),
            files: Vec::new(),
            inner: Findings::default(),
        }
    }

    /// Returns the findings of the tables within this one, then those of the table itself. Keys that nobody read are
    /// left over.
    pub(super) fn finish(self) -> Findings {
        let mut findings = self.inner;
        for (name, value) in self.table.into_iter().flatten() {
            if !self.asked.contains(&name.get_ref().as_ref()) {
                findings.leftovers.push(Leftover {
                    line: line_of(self.text, name.span().start),
                    table: self.title,
                    name: name.get_ref().to_string(),
                    is_table: self.title.is_empty() && is_tables(value.get_ref()),
                });
            }
        }
        findings.keys.extend(self.asked.iter().map(|name| Key { table: self.title, name }));
        findings.problems.extend(self.problems);
        findings.files.extend(self.files);
        findings
    }

    /// The folder of the configuration file.
    pub(super) fn folder(&self) -> &'a Path {
        self.folder
    }

    /// Whether the key is written.
    pub(super) fn has(&self, name: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(name))
    }

    /// Whether none of these keys has a problem: only then can they be judged together.
    pub(super) fn sound(&self, names: &[&str]) -> bool {
        !names.iter().any(|name| self.unsound.contains(name))
    }

    /// Notes a problem with a key, or with the table if the key is missing.
    pub(super) fn problem(&mut self, name: &'static str, remedy: impl Into<Remedy>) {
        let found = self.table.and_then(|table| table.get_key_value(name));
        let (at, written) = match found {
            Some((key, value)) => (key.span().start, Some(value.span())),
            None => (self.start, None),
        };
        self.note(name, at, written, " = ", remedy.into());
    }

    /// Reads a value with `read`, which returns the remedy if it is wrong. A missing or wrong value takes the default.
    pub(super) fn value<T>(
        &mut self,
        name: &'static str,
        default: T,
        read: impl FnOnce(&DeValue<'a>) -> Result<T, Remedy>,
    ) -> T {
        match self.take(name).map(|value| read(value.get_ref())) {
            None => default,
            Some(Ok(value)) => value,
            Some(Err(remedy)) => {
                self.problem(name, remedy);
                default
            }
        }
    }

    /// Reads a text, which `read` interprets.
    pub(super) fn text<T>(
        &mut self,
        name: &'static str,
        default: T,
        read: impl FnOnce(&str) -> Result<T, Remedy>,
    ) -> T {
        self.value(name, default, |value| match value.as_str() {
            Some(text) => read(text),
            // If the quotes are missing, the remedy still says what belongs between them.
            None => Err(read("")
                .err()
                .map_or_else(|| "a text in quotes".to_owned(), |remedy| format!("{remedy}, in quotes"))),
        })
    }

    /// Reads the path of a file, and notes where it is named.
    pub(super) fn path(&mut self, name: &'static str, default: &str) -> PathBuf {
        let path = self.text(name, default.to_owned(), value::path);
        self.named(name, path)
    }

    /// Reads the path of a file, and notes where it is named; `None` if it is empty or missing.
    pub(super) fn optional_path(&mut self, name: &'static str) -> Option<PathBuf> {
        let path = self.text(name, None, |text| match text {
            "" => Ok(None),
            path => value::path(path).map(Some),
        })?;
        Some(self.named(name, path))
    }

    /// Returns the full path of a file that a key names, and notes where it is named.
    fn named(&mut self, name: &'static str, path: String) -> PathBuf {
        let path = self.folder.join(path);
        let found = self.table.and_then(|table| table.get_key_value(name));
        let line = found.map(|(key, _)| line_of(self.text, key.span().start));
        let subject = self.subject(name, found.map(|(_, value)| value.span()), " = ");
        self.files.push(NamedFile { path: path.clone(), line, subject });
        path
    }

    /// Reads one of a list of words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        name: &'static str,
        default: T,
        choices: &[(&'static str, T)],
    ) -> T {
        self.text(name, default, |text| {
            choices
                .iter()
                .find(|(word, _)| *word == text)
                .map(|(_, value)| *value)
                .ok_or_else(|| one_of(choices))
        })
    }

    /// Reads `true` or `false`.
    pub(super) fn flag(&mut self, name: &'static str, default: bool) -> bool {
        self.value(name, default, |value| value.as_bool().ok_or_else(|| "true or false".to_owned()))
    }

    /// Reads a whole number within a range.
    pub(super) fn whole<T>(&mut self, name: &'static str, default: T, range: RangeInclusive<T>) -> T
    where
        T: TryFrom<i128> + PartialOrd + Display,
    {
        self.value(name, default, |value| {
            value
                .as_integer()
                .and_then(|number| i128::from_str_radix(number.as_str(), number.radix()).ok())
                .and_then(|number| T::try_from(number).ok())
                .filter(|number| range.contains(number))
                .ok_or_else(|| format!("a whole number from {} to {}", range.start(), range.end()))
        })
    }

    /// Reads a number within a range, with or without a decimal point.
    pub(super) fn number(&mut self, name: &'static str, default: f64, range: RangeInclusive<f64>) -> f64 {
        self.value(name, default, |value| {
            let written = match value {
                DeValue::Float(number) => Some(number.as_str()),
                DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str()),
                _ => None,
            };
            // TOML's nan is in no range.
            written
                .and_then(|number| number.parse().ok())
                .filter(|number| range.contains(number))
                .ok_or_else(|| format!("a number from {} to {}", range.start(), range.end()))
        })
    }

    /// Reads a duration within a range.
    pub(super) fn duration(
        &mut self,
        name: &'static str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        self.text(name, default, |text| {
            within(units::duration(text), &range, "a duration", units::DURATION, |duration| {
                units::show_duration(*duration)
            })
        })
    }

    /// Reads a duration within a range, or `word` for none.
    pub(super) fn duration_or(
        &mut self,
        name: &'static str,
        word: &'static str,
        default: Option<Duration>,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        self.text(name, default, |text| {
            if text == word {
                return Ok(None);
            }
            let duration = within(units::duration(text), &range, "a duration", units::DURATION, |duration| {
                units::show_duration(*duration)
            });
            duration.map(Some).map_err(|remedy| format!("{remedy}, or \"{word}\""))
        })
    }

    /// Reads a duration within a range; `None` if it is empty or missing.
    pub(super) fn optional_duration(
        &mut self,
        name: &'static str,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        if self
            .table
            .and_then(|table| table.get(name))
            .is_some_and(|value| value.get_ref().as_str() == Some(""))
        {
            self.take(name);
            return None;
        }
        let written = self.has(name);
        let duration = self.duration(name, Duration::ZERO, range);
        written.then_some(duration)
    }

    /// Reads a size in octets within a range.
    pub(super) fn size(&mut self, name: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        self.text(name, default, |text| {
            within(units::size(text), &range, "a size", units::SIZE, |octets| units::show_size(*octets))
        })
    }

    /// Reads a list of texts, each interpreted by `read`. A wrong element is a problem of its own and left out.
    pub(super) fn list<T>(
        &mut self,
        name: &'static str,
        default: Vec<T>,
        mut read: impl FnMut(&str) -> Result<T, Remedy>,
    ) -> Vec<T> {
        let Some(value) = self.take(name) else { return default };
        let Some(elements) = value.get_ref().as_array() else {
            self.problem(name, r#"a list of texts such as ["...", "..."], or []"#);
            return default;
        };
        let mut list = Vec::new();
        for element in elements {
            match element.get_ref().as_str().map_or_else(|| Err("a text in quotes".to_owned()), &mut read) {
                Ok(item) => list.push(item),
                Err(remedy) => self.note(name, element.span().start, Some(element.span()), ": ", remedy),
            }
        }
        list
    }

    /// Reads one text, or a list of at least one.
    pub(super) fn one_or_more<T>(
        &mut self,
        name: &'static str,
        default: Vec<T>,
        mut read: impl FnMut(&str) -> Result<T, Remedy>,
    ) -> Vec<T> {
        let is_list =
            self.table.and_then(|table| table.get(name)).is_some_and(|value| value.get_ref().is_array());
        if !is_list {
            return self.text(name, default, |text| read(text).map(|item| vec![item]));
        }
        let list = self.list(name, Vec::new(), read);
        if list.is_empty() && self.sound(&[name]) {
            self.problem(name, "at least one of them");
        }
        list
    }

    /// Reads a table within this one with `read`.
    pub(super) fn table<T>(
        &mut self,
        name: &'static str,
        title: &'static str,
        read: impl FnOnce(&mut Section<'a>) -> T,
    ) -> T {
        let Some(value) = self.take(name) else { return self.read_inner(title, None, 0, read) };
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.misshapen(
                name,
                format!("{title} on a line of its own, once, and its keys on the lines below"),
            );
        }
        self.read_inner(title, table, value.span().start, read)
    }

    /// Reads the tables `[[name]]` with `read`, in order; `read` is also given the results so far.
    pub(super) fn tables<T>(
        &mut self,
        name: &'static str,
        title: &'static str,
        mut read: impl FnMut(&mut Section<'a>, &[T]) -> T,
    ) -> Vec<T> {
        let Some(value) = self.take(name) else { return Vec::new() };
        let tables: Option<Vec<_>> = value.get_ref().as_array().and_then(|elements| {
            elements
                .iter()
                .map(|element| Some((element.get_ref().as_table()?, element.span().start)))
                .collect()
        });
        let Some(tables) = tables else {
            self.misshapen(name, format!("{title}, in double brackets, above the keys of each"));
            return Vec::new();
        };
        let mut list = Vec::with_capacity(tables.len());
        for (table, start) in tables {
            let item = self.read_inner(title, Some(table), start, |section| read(section, &list));
            list.push(item);
        }
        list
    }

    /// Reads a table within this one and keeps its findings.
    fn read_inner<T>(
        &mut self,
        title: &'static str,
        table: Option<&'a DeTable<'a>>,
        start: usize,
        read: impl FnOnce(&mut Section<'a>) -> T,
    ) -> T {
        let mut section = Section::new(self.text, self.folder, title, table, start);
        let value = read(&mut section);
        let found = section.finish();
        self.inner.leftovers.extend(found.leftovers);
        self.inner.keys.extend(found.keys);
        self.inner.problems.extend(found.problems);
        self.inner.files.extend(found.files);
        value
    }

    /// Notes that something is no table or the wrong kind of table; the latter is quoted by its header.
    fn misshapen(&mut self, name: &'static str, remedy: Remedy) {
        self.problem(name, remedy);
        let Some(value) = self.table.and_then(|table| table.get(name)) else { return };
        let written = self.text.get(value.span()).unwrap_or_default();
        if let Some(problem) = self.problems.last_mut().filter(|_| is_tables(value.get_ref())) {
            problem.subject = excerpt(written);
        }
    }

    fn take(&mut self, name: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.push(name);
        self.table.and_then(|table| table.get(name))
    }

    fn note(
        &mut self,
        name: &'static str,
        at: usize,
        written: Option<Range<usize>>,
        joint: &str,
        remedy: Remedy,
    ) {
        let subject = self.subject(name, written, joint);
        self.problems.push(Problem { line: Some(line_of(self.text, at)), subject, remedy });
        self.unsound.push(name);
    }

    /// Table, key and the value as written.
    fn subject(&self, name: &str, written: Option<Range<usize>>, joint: &str) -> String {
        let mut subject = String::from(self.title);
        if !subject.is_empty() {
            subject.push(' ');
        }
        subject.push_str(name);
        // The span of a table is its header, which the subject already has.
        if let Some(written) = written.and_then(|span| self.text.get(span)).filter(|text| !text.is_empty()) {
            subject.push_str(joint);
            subject.push_str(&excerpt(written));
        }
        subject
    }
}

/// The line, from 1, that contains the octet at `offset`.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|octet| *octet == b'\n').count()
}

/// Lists the words: `"a", "b" or "c"`.
pub(super) fn one_of<T>(choices: &[(&'static str, T)]) -> String {
    match choices {
        [] => String::new(),
        [(only, _)] => format!("\"{only}\""),
        [first @ .., (last, _)] => {
            let first: Vec<String> = first.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            format!("{} or \"{last}\"", first.join(", "))
        }
    }
}

fn within<T: PartialOrd>(
    value: Option<T>,
    range: &RangeInclusive<T>,
    noun: &str,
    example: &str,
    show: impl Fn(&T) -> String,
) -> Result<T, Remedy> {
    match value {
        Some(value) if range.contains(&value) => Ok(value),
        Some(_) => Err(format!("{noun} from {} to {}", show(range.start()), show(range.end()))),
        None => Err(example.to_owned()),
    }
}

fn is_tables(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::Table(_) => true,
        DeValue::Array(elements) => elements.iter().any(|element| element.get_ref().is_table()),
        _ => false,
    }
}

/// The first line of `written`, at most [`SHOWN`] characters, with blanks for what is unsafe to show.
pub(super) fn excerpt(written: &str) -> String {
    let line = written.lines().next().unwrap_or_default();
    let mut shown: String = line.chars().take(SHOWN).map(|c| if is_unsafe(c) { ' ' } else { c }).collect();
    if shown.len() < written.len() {
        shown.push_str("...");
    }
    shown
}
