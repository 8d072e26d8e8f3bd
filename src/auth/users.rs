//! The users file: one `NAME:HASH` per line. Reading is strict; [`super::edit`] edits it and leaves everything else
//! alone.
//!
//! A Dovecot passwd-file can be used: further `:` fields are ignored. `#` begins a comment at the start of a line or
//! after a blank. Names are looked up exactly first, then ignoring ASCII case.

use std::collections::{BTreeMap, HashMap, hash_map::Entry as Slot};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::scheme::{Hash, Scheme, Secret};
use super::{Mechanism, UsersError};
use crate::account::Account;

/// The beginning of the comment line that states the file's version; a file without one has version 1.
const VERSION_MARK: &str = "# gatepost users ";
/// Stands in a file whose last user was removed.
pub(super) const EMPTIED: &str = "# gatepost: no users, the last one was removed";
/// The version that this Gatepost writes, and the newest that it reads.
const VERSION: u32 = 1;

/// The users of one version of the file.
#[derive(Default)]
pub struct Users {
    /// In the order of the file.
    users: Vec<User>,
    /// Indexes into `users` by name in ASCII lower case.
    by_name: HashMap<Box<str>, usize>,
    /// For each cost that a check can have, the index of one user and the cumulative number of usable users; sorted by
    /// cost, so that one user more or less shifts the bounds only little.
    costs: Vec<(usize, u64)>,
    /// [`EMPTIED`] stands in the file.
    is_emptied: bool,
}

/// One line of the users file.
pub struct User {
    account: Account,
    name: Box<str>,
    secret: Arc<Secret>,
}

/// Why the whole file is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub text: String,
}

impl Users {
    /// Parses the content of a users file. It may have no users.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn parse(content: &[u8]) -> Result<Self, Problem> {
        let text = text(content)?;
        known(text)?;
        let mut users = Self::default();
        let mut lines = Vec::new();
        for entry in entries(text) {
            let entry = entry?;
            let wrong = |text: String| Problem { line: entry.line, text };
            let name = &text[entry.name.clone()];
            let account = Account::user(name).map_err(|cause| wrong(cause.to_string()))?;
            let secret = Secret::read(&text[entry.hash.clone()]).map_err(wrong)?;
            match users.by_name.entry(name.to_ascii_lowercase().into()) {
                Slot::Vacant(slot) => slot.insert(users.users.len()),
                Slot::Occupied(slot) => {
                    let (other, line) = (&users.users[*slot.get()].name, lines[*slot.get()]);
                    return Err(wrong(if **other == *name {
                        format!("`{name}` stands in line {line} already; a name has one line")
                    } else {
                        format!(
                            "`{name}` and `{other}` in line {line} differ only in case; a name has one line"
                        )
                    }));
                }
            };
            users.users.push(User { account, name: name.into(), secret: Arc::new(secret) });
            lines.push(entry.line);
        }
        users.costs = users.tally();
        // Nothing follows it: a file that was cut off, or whose users were taken out otherwise, is no such file.
        users.is_emptied = text.trim_end().lines().next_back() == Some(EMPTIED);
        Ok(users)
    }

    /// Reads a users file.
    ///
    /// # Errors
    /// The file cannot be read, or a line is wrong.
    pub fn read(path: &Path) -> Result<Self, UsersError> {
        let content = std::fs::read(path).map_err(|cause| UsersError::io(path, cause))?;
        Self::parse(&content).map_err(|problem| UsersError::line(path, problem))
    }

    /// Finds a user by exact name, then ignoring the case of ASCII letters.
    pub fn get(&self, name: &str) -> Option<&User> {
        self.by_name.get(name.to_ascii_lowercase().as_str()).and_then(|index| self.users.get(*index))
    }

    /// All users, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &User> {
        self.users.iter()
    }

    /// How many users there are, including those who are shut out.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there are no users.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Whether the file says that nobody is to be in it. One that is empty for another reason is an accident.
    pub(super) fn is_meant_to_be_empty(&self) -> bool {
        self.is_emptied && self.users.is_empty()
    }

    /// The configured mechanisms that every user who can log in can use; none if nobody can log in.
    pub fn offered(&self, configured: &[Mechanism]) -> Vec<Mechanism> {
        let nobody = self.iter().all(|user| user.shut_out().is_some());
        let everyone = |mechanism: &Mechanism| !nobody && self.barred_from(*mechanism).next().is_none();
        configured.iter().copied().filter(everyone).collect()
    }

    /// The users who can log in, but not with this mechanism.
    pub fn barred_from(&self, mechanism: Mechanism) -> impl Iterator<Item = &User> {
        self.iter().filter(move |user| user.shut_out().is_none() && user.mechanisms(&[mechanism]).is_empty())
    }

    /// The users whose line is missing in `newer` or has another name or hash; further fields and comments do not
    /// matter.
    pub(super) fn ended(&self, newer: &Self) -> Vec<String> {
        let same = |user: &User| newer.get(&user.name).is_some_and(|now| now.is(user));
        self.iter().filter(|user| !same(user)).map(|user| user.name.to_string()).collect()
    }

    /// The user after whom a check for an unknown name is modelled. `draw` is a random number that is always the same
    /// for the same name, so that unknown names cost what known ones do, with the frequencies of this file.
    pub(super) fn model(&self, draw: u64) -> Option<&User> {
        let (_, total) = self.costs.last()?;
        let point = (u128::from(draw) * u128::from(*total)) >> 64;
        let at = self.costs.partition_point(|(_, up_to)| u128::from(*up_to) <= point);
        self.costs.get(at).and_then(|(index, _)| self.users.get(*index))
    }

    fn tally(&self) -> Vec<(usize, u64)> {
        let mut costs = BTreeMap::new();
        for (index, user) in self.users.iter().enumerate() {
            if let Some(hash) = user.hash() {
                costs.entry(hash.cost()).or_insert((index, 0)).1 += 1;
            }
        }
        let mut up_to = 0;
        costs
            .into_values()
            .map(|(index, count)| {
                up_to += count;
                (index, up_to)
            })
            .collect()
    }
}

impl User {
    /// The name as the file spells it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The account of this user.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// The scheme of the hash, as Dovecot or the line itself names it; `None` if there is no hash.
    pub fn scheme(&self) -> Option<&str> {
        self.secret.scheme()
    }

    /// Why this user cannot log in at all; `None` if the user can.
    pub fn shut_out(&self) -> Option<&str> {
        match &*self.secret {
            Secret::Usable(_) => None,
            Secret::Unusable { why, .. } => Some(why),
        }
    }

    /// The configured mechanisms that this hash supports.
    pub fn mechanisms(&self, configured: &[Mechanism]) -> Vec<Mechanism> {
        let serves = |mechanism: &Mechanism| match (mechanism, self.hash().map(Hash::scheme)) {
            (_, None) => false,
            // RFC 5802 needs keys that only its own verifier contains.
            (Mechanism::ScramSha256, Some(scheme)) => scheme == Scheme::ScramSha256,
            (Mechanism::Plain | Mechanism::Login, Some(_)) => true,
        };
        configured.iter().copied().filter(serves).collect()
    }

    /// Whether `other` has the same name and hash.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.name == other.name && self.secret == other.secret
    }

    /// The hash that a password is checked against.
    pub(super) fn hash(&self) -> Option<&Hash> {
        match &*self.secret {
            Secret::Usable(hash) => Some(hash),
            Secret::Unusable { .. } => None,
        }
    }

    /// The secret, shared so that it can be kept while a check runs.
    pub(super) fn secret(&self) -> Arc<Secret> {
        Arc::clone(&self.secret)
    }
}

/// Where the parts of a user's line are in the text.
pub(super) struct Entry {
    /// Line number, from 1.
    pub(super) line: usize,
    /// The whole line, including its line ending.
    pub(super) whole: Range<usize>,
    /// The part before the colon.
    pub(super) name: Range<usize>,
    /// The part after it, up to the next colon, comment or line ending; may be empty.
    pub(super) hash: Range<usize>,
}

/// The content as text.
pub(super) fn text(content: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(content).map_err(|cause| {
        let before = content.get(..cause.valid_up_to()).unwrap_or_default();
        let line = 1 + memchr::memchr_iter(b'\n', before).count();
        Problem { line, text: "not UTF-8; the users file is UTF-8 text".to_owned() }
    })
}

/// The first line of a file that Gatepost creates.
pub(super) fn version_line() -> String {
    format!("{VERSION_MARK}{VERSION}")
}

/// Whether the version that the file states is known.
fn known(text: &str) -> Result<(), Problem> {
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        // Other comments may begin the same way.
        let version = line.strip_prefix(VERSION_MARK).and_then(|version| version.trim().parse::<u64>().ok());
        if let Some(found) = version.filter(|found| *found > u64::from(VERSION)) {
            return Err(Problem {
                line: index + 1,
                text: format!(
                    "the users file has version {found}; this Gatepost knows up to {VERSION}. Use a newer Gatepost"
                ),
            });
        }
    }
    Ok(())
}

/// The lines that are neither blank nor comments. Lines end with LF or CRLF; a byte order mark is ignored.
pub(super) fn entries(text: &str) -> impl Iterator<Item = Result<Entry, Problem>> {
    let mut start = 0;
    text.split_inclusive('\n').enumerate().filter_map(move |(index, line)| {
        let at = start;
        start += line.len();
        let content = line.strip_suffix('\n').unwrap_or(line);
        let content = content.strip_suffix('\r').unwrap_or(content);
        let mark = if index == 0 && content.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        let content = &content[mark..];
        if content.trim_start().is_empty() || content.trim_start().starts_with('#') {
            return None;
        }
        let whole = at..start;
        Some(entry(index + 1, at + mark, whole, content))
    })
}

/// `at` is the offset of `content` in the text.
fn entry(line: usize, at: usize, whole: Range<usize>, content: &str) -> Result<Entry, Problem> {
    let wrong = |text: &str| Problem { line, text: text.to_owned() };
    let (name, rest) = content.split_once(':').ok_or_else(|| wrong("no `:`; a line is NAME:HASH"))?;
    let mut field = rest.split(':').next().unwrap_or_default();
    let comment = field
        .char_indices()
        .zip(field.chars().skip(1))
        .find(|((_, blank), hash)| matches!(blank, ' ' | '\t') && *hash == '#');
    if let Some(((end, _), _)) = comment {
        field = &field[..end];
    }
    let hash = field.trim_matches([' ', '\t']);
    if name.is_empty() {
        return Err(wrong("no name before the `:`; a line is NAME:HASH"));
    }
    if name.chars().chain(hash.chars()).any(char::is_control) {
        return Err(wrong("a control character; name and hash have none"));
    }
    let begin = at + name.len() + 1 + (field.len() - field.trim_start_matches([' ', '\t']).len());
    Ok(Entry { line, whole, name: at..at + name.len(), hash: begin..begin + hash.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// doveadm pw -s SHA256-CRYPT -r 1000 -p 'correct horse'
    const CRYPT: &str = "$5$rounds=1000$8g3bLFkL5Aut2SOi$GLcj/dD3LUBe6HsKOb/.Md/0lurit91j96ihy0vhx/2";
    const SCRAM: &str = "{SCRAM-SHA-256}4096,BTObTyn3847hjgwpF6xmpg==,hICkXYOhkZAjOWibsPoUGumQEKoIPoFdrCXC53tcLaw=,wm74XKUVBf/JUfbA0NoS+gD5UcZLm6fele6BCJrEq08=";
    const ALL: [Mechanism; 3] = [Mechanism::Plain, Mechanism::Login, Mechanism::ScramSha256];

    fn names(content: &str) -> Result<Vec<String>, Problem> {
        Ok(Users::parse(content.as_bytes())?.iter().map(|user| user.name().to_owned()).collect())
    }

    #[test]
    fn what_a_file_may_look_like() {
        let long = "x".repeat(255);
        for (content, expected) in [
            (String::new(), &[][..]),
            ("# nobody\n\n  \n\t# yet".to_owned(), &[]),
            (format!("# gatepost users 1\nanna:{CRYPT}\n"), &["anna"]),
            (format!("# gatepost users: 20 of them\n# gatepost users 7 and 8\nanna:{CRYPT}\n"), &["anna"]),
            (format!("anna:{CRYPT}\n"), &["anna"]),
            // A last line without a line ending; CRLF; a byte order mark.
            (format!("anna:{CRYPT}\r\nbob:{SCRAM}"), &["anna", "bob"]),
            (format!("\u{feff}anna:{CRYPT}\n"), &["anna"]),
            (format!("\u{feff}# a comment\n{long}:{CRYPT}\n"), &[&long]),
            // Dovecot's further fields, with a # in one of them.
            (
                format!("anna@example.org:{CRYPT}:1000:1000:Anna #1:/home/anna::quota=1\n"),
                &["anna@example.org"],
            ),
            (format!("anna:{CRYPT} # until: June\nbob:{SCRAM}\t#\n"), &["anna", "bob"]),
            (format!("anna: {CRYPT} \n"), &["anna"]),
            // Non-ASCII letters; only ASCII case is folded.
            (format!("Ä:{CRYPT}\nä:{CRYPT}\n"), &["Ä", "ä"]),
            // Nothing after the name; Dovecot allows that.
            ("a:\nb::1000\nc: # later\nd:#later\n".to_owned(), &["a", "b", "c", "d"]),
            ("gone:!:1000\nold:{SSHA}x7HdCCS88lBckW/eYB9T3hvOVnpFfClD\n".to_owned(), &["gone", "old"]),
        ] {
            assert_eq!(names(&content).unwrap(), expected, "{content}");
        }
    }

    #[test]
    fn what_refuses_the_file() {
        for (content, line, part) in [
            // Whatever a newer version looks like.
            ("# gatepost users 2\nanna {scheme=9}\n".to_owned(), 1, "version 2; this Gatepost knows up to 1"),
            (
                "anna {scheme=9}\n# gatepost users 18446744073709551615\n".to_owned(),
                2,
                "18446744073709551615",
            ),
            ("anna\n".to_owned(), 1, "NAME:HASH"),
            (format!("# a\n\n:{CRYPT}\n"), 3, "no name"),
            (format!("anna :{CRYPT}\n"), 1, "blanks"),
            (format!(" anna:{CRYPT}\n"), 1, "blanks"),
            (format!("an\tna:{CRYPT}\n"), 1, "control"),
            (format!("anna:{CRYPT}\0\n"), 1, "control"),
            (format!("anna:{CRYPT}\n\0\0\0\0"), 2, "NAME:HASH"),
            (format!("{}:{CRYPT}\n", "x".repeat(256)), 1, "255"),
            (format!("anna:{CRYPT}\nbob:{CRYPT}x\n"), 2, "SHA256-CRYPT"),
            (format!("anna:{CRYPT} {SCRAM}\n"), 1, "SHA256-CRYPT"),
            (format!("anna:{CRYPT}\nbob:{CRYPT}\nanna:{SCRAM}\n"), 3, "`anna` stands in line 1 already"),
            (
                format!("# a\nAnna:{CRYPT}\nanna:{CRYPT}\n"),
                3,
                "`anna` and `Anna` in line 2 differ only in case",
            ),
        ] {
            let problem = names(&content).unwrap_err();
            assert_eq!(problem.line, line, "{content}");
            assert!(problem.text.contains(part), "{content}: {}", problem.text);
        }
        let latin = [b"# \xe4\n".as_slice(), b"anna:x\n"].concat();
        assert_eq!(Users::parse(&latin).err().map(|problem| problem.line), Some(1));
    }

    #[test]
    fn found_exactly_or_but_for_case() {
        let users = Users::parse(format!("Anna@Example.org:{CRYPT}\nä:{CRYPT}\n").as_bytes()).unwrap();
        for (name, found) in [
            ("Anna@Example.org", Some("Anna@Example.org")),
            ("anna@EXAMPLE.ORG", Some("Anna@Example.org")),
            ("anna@example.or", None),
            ("Ä", None),
            ("", None),
        ] {
            assert_eq!(users.get(name).map(User::name), found, "{name}");
        }
        assert_eq!(users.get("anna@example.org").unwrap().account().as_str(), "user:Anna@Example.org");
    }

    #[test]
    fn what_is_offered() {
        use Mechanism::{Login, Plain, ScramSha256};
        for (content, expected) in [
            (format!("a:{SCRAM}\n"), &[Plain, Login, ScramSha256][..]),
            (format!("a:{SCRAM}\nb:{CRYPT}\n"), &[Plain, Login]),
            // Users who are shut out do not bar the others.
            (format!("a:{SCRAM}\nb:{{SSHA}}x\n"), &[Plain, Login, ScramSha256]),
            (format!("a:{SCRAM}\nb:\n"), &[Plain, Login, ScramSha256]),
            ("b:{SSHA}x\n".to_owned(), &[]),
            ("b:\n".to_owned(), &[]),
            (String::new(), &[]),
        ] {
            let users = Users::parse(content.as_bytes()).unwrap();
            assert_eq!(users.offered(&ALL), expected, "{content}");
        }
        let users = Users::parse(format!("a:{SCRAM}\nb:{CRYPT}\nc:!\nd::1000\n").as_bytes()).unwrap();
        assert_eq!(users.barred_from(ScramSha256).map(User::name).collect::<Vec<_>>(), ["b"]);
        let listed: Vec<_> = users
            .iter()
            .map(|user| {
                (user.scheme().unwrap_or("-"), user.mechanisms(&ALL).len(), user.shut_out().is_some())
            })
            .collect();
        assert_eq!(
            listed,
            [("SCRAM-SHA-256", 3, false), ("SHA256-CRYPT", 2, false), ("unknown", 0, true), ("-", 0, true)]
        );
        assert_eq!(users.iter().last().and_then(User::shut_out), Some("the line has no hash"));
    }

    #[test]
    fn whose_sessions_end() {
        let before = Users::parse(
            format!(
                "same:{CRYPT}:1\npasswd:{CRYPT}\ngone:{CRYPT}\nCase:{CRYPT}\nout:{CRYPT}\nlast:{SCRAM}\n"
            )
            .as_bytes(),
        );
        let after = Users::parse(
            format!("new:{CRYPT}\nsame:{CRYPT}:2 # a\npasswd:{SCRAM}\ncase:{CRYPT}\nout:!\nlast:{SCRAM}\n")
                .as_bytes(),
        );
        assert_eq!(before.unwrap().ended(&after.unwrap()), ["passwd", "gone", "Case", "out"]);
    }

    #[test]
    fn models_are_spread_as_the_costs_are() {
        let users = Users::parse(format!("a:{SCRAM}\nb:{CRYPT}\nc:{CRYPT}\nd:{CRYPT}\ne:!\nf:\n").as_bytes())
            .unwrap();
        // `$5$...` sorts before `SCRAM ...`: three quarters, then one quarter.
        for (draw, scheme) in [
            (0, "SHA256-CRYPT"),
            (u64::MAX / 4 * 3 - 4, "SHA256-CRYPT"),
            (u64::MAX / 4 * 3 + 4, "SCRAM-SHA-256"),
            (u64::MAX, "SCRAM-SHA-256"),
        ] {
            assert_eq!(users.model(draw).and_then(User::scheme), Some(scheme), "{draw}");
        }
        assert!(Users::default().model(7).is_none());
    }
}
