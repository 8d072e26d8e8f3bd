//! The house is kept as the front page of the library draws it: who may use whom, what stands in one place only, what every file
//! begins with. Each breach is printed as `file:line: rule`.
//!
//! It reads the sources as text, without comments, texts in quotes and `#[cfg(test)]` code; what a compiler is needed for (lints,
//! unused code, undocumented items) is clippy's business.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What a layer may never contain.
const NO_WORLD: &[&str] = &[
    "tokio::",
    "std::fs",
    "TcpStream",
    "TcpListener",
    "UnixStream",
    "UnixListener",
    "sled::",
    "tracing::",
    "now()",
];
const NO_TALK: &[&str] = &["tracing::", "crate::session::texts", "crate::maillog"];
const NO_MACHINERY: &[&str] = &["sled::", "rustls::", "rsasl::"];

/// A unit of the house: a module (or a file of one), the units that it may use, and words that it may not contain.
/// A file belongs to the unit with the longest matching name.
struct Unit {
    name: &'static str,
    may_use: &'static [&'static str],
    never: &'static [&'static str],
}

const fn unit(name: &'static str, may_use: &'static [&'static str], never: &'static [&'static str]) -> Unit {
    Unit { name, may_use, never }
}

const WORDS: &[&str] = &[
    "smtp",
    "account",
    "clock",
    "decimal",
    "encoded_word",
    "id",
    "fail",
    "history",
    "rare",
    "units",
    "visible",
];

/// Units may use the words (layer 0) without saying so. A unit used by its parts is named with them: `guard` is its `mod.rs`.
const HOUSE: &[Unit] = &[
    // Layer 0: words. Only the clock asks the system anything.
    unit("smtp", &["account", "clock", "decimal", "id", "visible"], NO_WORLD),
    unit("decimal", &[], NO_WORLD),
    unit("encoded_word", &[], NO_WORLD),
    unit("units", &[], NO_WORLD),
    unit("rare", &[], NO_WORLD),
    unit("visible", &[], NO_WORLD),
    unit("account", &[], NO_WORLD),
    unit("clock", &["fail"], &["tokio::", "std::fs", "sled::", "tracing::"]),
    unit("id", &["clock"], NO_WORLD),
    unit("history", &["clock"], NO_WORLD),
    unit("fail", &[], &["tokio::", "sled::", "tracing::", "now()"]),
    // Layer 1: decisions. The configuration is made of the parts' own settings.
    unit("session", &["guard::mimicry", "sender::rules"], NO_WORLD),
    unit("sender::rules", &[], NO_WORLD),
    unit("guard::classify", &[], NO_WORLD),
    unit("guard::window", &[], NO_WORLD),
    unit("guard::cause", &["guard::window"], NO_WORLD),
    unit("guard::detector", &["guard::window"], NO_WORLD),
    unit("guard::mimicry", &[], NO_WORLD),
    unit("guard", &[], NO_WORLD),
    unit("quarantine::envelope", &["quarantine::schedule"], NO_WORLD),
    unit("quarantine::schedule", &[], NO_WORLD),
    unit(
        "replay",
        &["guard::cause", "guard::classify", "guard::detector", "guard::window", "quarantine::schedule"],
        NO_WORLD,
    ),
    unit(
        "config",
        &["auth", "guard", "guard::classify", "guard::ledger", "notify", "quarantine", "sender", "upstream"],
        &["tokio::", "TcpStream", "sled::", "tracing::", "now()"],
    ),
    // Layer 2: parts.
    unit("durable", &[], NO_TALK),
    unit("net", &["durable"], NO_TALK),
    unit("roster", &[], NO_TALK),
    unit("rested", &[], NO_TALK),
    unit("sender", &["rested", "sender::rules"], NO_TALK),
    unit("auth", &["durable", "net", "rested"], NO_TALK),
    unit("upstream", &["durable", "net"], NO_TALK),
    unit("notify", &["durable", "net", "quarantine::schedule"], NO_TALK),
    unit(
        "guard::ledger",
        &["durable", "guard::window", "guard::detector", "guard::cause", "guard::mimicry"],
        NO_TALK,
    ),
    unit("quarantine", &["durable", "quarantine::envelope", "quarantine::schedule"], NO_TALK),
    // Layer 3: paths.
    unit("submission", PARTS, NO_MACHINERY),
    unit("release", PARTS, NO_MACHINERY),
    unit("transfer", PARTS, NO_MACHINERY),
    unit("control", PARTS, NO_MACHINERY),
    unit("desk", PARTS, NO_MACHINERY),
    unit("digest", PARTS, NO_MACHINERY),
    unit("maillog", PARTS, NO_MACHINERY),
    unit("parts", PARTS, NO_MACHINERY),
    // Layer 4: the program.
    unit("server", PROGRAM, &["sled::", "rsasl::"]),
    unit("cli", PROGRAM, &["sled::", "rsasl::"]),
    unit("demo", PROGRAM, &["sled::", "rsasl::"]),
    unit("main", PROGRAM, &["sled::", "rsasl::"]),
    unit("lib", PROGRAM, &["sled::", "rsasl::"]),
];

/// What layer 3 may use: layers 1 and 2, and each other.
const PARTS: &[&str] = &[
    "session",
    "guard",
    "config",
    "durable",
    "net",
    "roster",
    "rested",
    "sender",
    "auth",
    "upstream",
    "notify",
    "quarantine",
    "submission",
    "release",
    "transfer",
    "control",
    "desk",
    "digest",
    "maillog",
    "parts",
];

/// Everything.
const PROGRAM: &[&str] = &[""];

/// Who asks the clock: the paths, the program, and two parts, the outbox for its rounds and `net/self_signed.rs` for the dates of a
/// certificate.
const ASK_THE_TIME: &[&str] = &[
    "src/submission",
    "src/release",
    "src/control/",
    "src/desk.rs",
    "src/maillog/",
    "src/server/",
    "src/cli/",
    "src/demo/",
    "src/notify/outbox/",
    "src/net/self_signed.rs",
];

/// Words that one place alone may say.
const ONE_PLACE: &[(&str, &[&str], &str)] = &[
    ("sled::", &["src/guard/ledger/"], "only guard's ledger names sled"),
    ("rsasl::", &["src/auth/"], "only auth names rsasl"),
    ("lettre::", &["src/notify/"], "only notify names lettre"),
    ("rustls_pemfile::", &["src/net/pem.rs"], "only net/pem.rs reads PEM"),
    ("SystemTime::now", &["src/clock.rs"], "only the clock asks what time it is"),
    ("clock::now", ASK_THE_TIME, "time is an argument: the paths and the program ask for it, and two parts"),
    ("sync_all", &["src/durable.rs", "src/guard/ledger/"], "only durable makes files durable"),
    ("sync_data", &["src/durable.rs", "src/guard/ledger/"], "only durable makes files durable"),
    ("println!", &["src/cli/", "src/demo/"], "only commands speak to people"),
];

/// One source file, made ready for the rules.
struct Source {
    /// `src/guard/ledger/mod.rs`
    path: String,
    /// `guard::ledger`
    module: String,
    text: String,
    /// The code alone, line by line.
    code: Vec<String>,
}

fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    let mut sources: Vec<Source> = files.iter().map(|path| source(root, path)).collect();
    let tests: Vec<String> = sources.iter().flat_map(test_modules).collect();
    for source in &mut sources {
        let within =
            |name: &String| source.module == *name || source.module.starts_with(&format!("{name}::"));
        if tests.iter().any(within) {
            source.code.clear();
        }
    }
    sources
}

/// The modules that are tests: the file itself by `#![cfg(test)]`, or what it declares as `#[cfg(test)] mod NAME;`.
fn test_modules(source: &Source) -> Vec<String> {
    if source.text.contains("\n#![cfg(test)]\n") {
        return vec![source.module.clone()];
    }
    let lines: Vec<&str> = source.text.lines().map(str::trim).collect();
    let declared = lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]").filter_map(|pair| {
        let (_, name) = pair[1].rsplit_once("mod ")?;
        Some(format!("{}::{}", source.module, name.strip_suffix(';')?))
    });
    declared.collect()
}

fn source(root: &Path, path: &PathBuf) -> Source {
    let text = fs::read_to_string(path).unwrap();
    let path = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
    let module = path
        .strip_prefix("src/")
        .unwrap_or(&path)
        .trim_end_matches(".rs")
        .trim_end_matches("/mod")
        .replace('/', "::");
    let code = code_of(&text);
    Source { path, module, text, code }
}

/// The text without comments, without what stands in quotes, and without `#[cfg(test)]` items; line numbers are kept.
fn code_of(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    // The indentation at which a test item ends, while within one.
    let mut test_item: Option<String> = None;
    for line in without_quotes_and_comments(text).lines() {
        let indentation = &line[..line.len() - line.trim_start().len()];
        if let Some(outer) = &test_item {
            let ends =
                indentation == outer && !line.trim_start().starts_with("#[") && line.ends_with(['}', ';']);
            if ends {
                test_item = None;
            }
            lines.push(String::new());
        } else if line.trim_start().starts_with("#[cfg(test)]") {
            test_item = Some(indentation.to_owned());
            lines.push(String::new());
        } else {
            lines.push(line.to_owned());
        }
    }
    lines
}

fn without_quotes_and_comments(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(raw) = rest.strip_prefix("r#\"") {
            raw.find("\"#").map_or(rest.len(), |end| end + 5)
        } else if rest.starts_with("r\"") && !kept.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            rest[2..].find('"').map_or(rest.len(), |end| end + 3)
        } else if next == '"' {
            quoted(rest)
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\''") {
            rest[1..].find('\'').unwrap() + if rest.starts_with("'\\''") { 3 } else { 2 }
        } else {
            kept.push(next);
            rest = &rest[next.len_utf8()..];
            continue;
        };
        // Line numbers stay.
        kept.extend(rest[..skipped].chars().filter(|&c| c == '\n'));
        rest = &rest[skipped..];
    }
    kept
}

/// The length of the string literal that `text` begins with.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '\\' if !escaped => escaped = true,
            '"' if !escaped => return at + 1,
            _ => escaped = false,
        }
    }
    text.len()
}

/// Breaches, as `file:line: rule`.
#[derive(Default)]
struct Breaches(BTreeSet<String>);

impl Breaches {
    fn add(&mut self, source: &Source, line: usize, rule: &str) {
        self.0.insert(format!("{}:{}: {rule}", source.path, line + 1));
    }

    fn expect_none(self) {
        let list: Vec<_> = self.0.into_iter().collect();
        assert!(list.is_empty(), "{} breaches:\n{}", list.len(), list.join("\n"));
    }
}

fn unit_of(module: &str) -> Option<&'static Unit> {
    let covers = |unit: &&Unit| module == unit.name || module.starts_with(&format!("{}::", unit.name));
    HOUSE.iter().filter(covers).max_by_key(|unit| unit.name.len())
}

fn may_use(user: &Unit, used: &Unit) -> bool {
    let named =
        |name: &&str| name.is_empty() || used.name == *name || used.name.starts_with(&format!("{name}::"));
    user.name == used.name
        || WORDS.contains(&used.name) && !WORDS.contains(&user.name)
        || user.may_use.iter().any(named)
}

/// Every path that begins with `crate::` or `super::` in the code, as a module path from the root, with its line.
fn uses(source: &Source) -> Vec<(usize, String)> {
    let all = source.code.join("\n");
    let mut found = Vec::new();
    for opening in ["crate::", "super::"] {
        for (at, _) in all.match_indices(opening) {
            // The second super of `super::super::` was seen with the first; `::crate::` is not ours.
            if all[..at].ends_with("::")
                || all[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$')
            {
                continue;
            }
            let line = all[..at].matches('\n').count();
            let mut base: Vec<&str> =
                if opening == "crate::" { Vec::new() } else { source.module.split("::").collect() };
            let mut rest = &all[at..];
            while let Some(after) = rest.strip_prefix("super::") {
                base.pop();
                rest = after;
            }
            rest = rest.strip_prefix("crate::").unwrap_or(rest);
            for path in branches(rest) {
                let full: Vec<&str> = base.iter().copied().chain(path.iter().map(String::as_str)).collect();
                found.push((line, full.join("::")));
            }
        }
    }
    found
}

/// `a::{b, c::d}` as `a::b` and `a::c::d`.
fn branches(text: &str) -> Vec<Vec<String>> {
    if let Some(group) = text.strip_prefix('{') {
        let mut depth = 0;
        let mut begin = 0;
        let mut found = Vec::new();
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    let branch = group[begin..at].trim();
                    if !branch.is_empty() {
                        found.extend(branches(branch));
                    }
                    begin = at + 1;
                    if c == '}' {
                        break;
                    }
                }
                _ => {}
            }
        }
        return found;
    }
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    let head = text[..end].to_owned();
    match text[end..].strip_prefix("::") {
        Some(tail) => branches(tail)
            .into_iter()
            .map(|mut path| {
                path.insert(0, head.clone());
                path
            })
            .collect(),
        None => vec![vec![head]],
    }
}

/// STYLE, The house: the layers.
#[test]
fn every_module_uses_only_what_its_layer_may() {
    let mut breaches = Breaches::default();
    for source in sources("src") {
        let Some(user) = unit_of(&source.module) else {
            breaches.add(
                &source,
                0,
                "this module stands in no layer: give it a place in tests/tidy.rs and in lib.rs",
            );
            continue;
        };
        for (line, path) in uses(&source) {
            // A name that is no module of ours: an item of the crate's root, or of the module itself.
            let Some(used) = unit_of(&path) else { continue };
            if !may_use(user, used) {
                breaches.add(&source, line, &format!("{} may not use {}", user.name, used.name));
            }
        }
        for (line, text) in source.code.iter().enumerate() {
            for word in user.never.iter().filter(|word| text.contains(**word)) {
                breaches.add(&source, line, &format!("{} may not contain `{word}`", user.name));
            }
        }
    }
    breaches.expect_none();
}

/// STYLE, The house: no circle of imports.
#[test]
fn the_layers_have_no_circle() {
    fn visit(unit: &'static Unit, path: &mut Vec<&'static str>) {
        assert!(!path.contains(&unit.name), "a circle: {} -> {}", path.join(" -> "), unit.name);
        path.push(unit.name);
        for used in HOUSE.iter().filter(|used| used.name != unit.name && unit.may_use.contains(&used.name)) {
            // Layer 3 and the program are one household each.
            if !PARTS.contains(&unit.name) || !unit.may_use.contains(&"maillog") {
                visit(used, path);
            }
        }
        path.pop();
    }
    for unit in HOUSE {
        visit(unit, &mut Vec::new());
    }
}

/// STYLE, Comments: each file opens with what it owns.
#[test]
fn every_file_opens_with_its_manual() {
    let mut breaches = Breaches::default();
    for source in ["src", "tests"].into_iter().flat_map(sources) {
        let manual = source.text.lines().take_while(|line| line.starts_with("//!")).count();
        if manual == 0 {
            breaches.add(&source, 0, "a file begins with `//!`: what it owns, what it must not do");
        }
    }
    breaches.expect_none();
}

/// STYLE, The house: `sled::` in one module, `now()` in one file, and their like.
#[test]
fn what_stands_in_one_place_stands_there_alone() {
    let mut breaches = Breaches::default();
    for source in sources("src") {
        for (line, text) in source.code.iter().enumerate() {
            for (word, places, rule) in ONE_PLACE {
                if text.contains(word) && !places.iter().any(|place| source.path.starts_with(place)) {
                    breaches.add(&source, line, rule);
                }
            }
        }
    }
    breaches.expect_none();
}

/// STYLE, The house: no `unwrap()` outside tests; nothing left undone, or switched off without a reason.
#[test]
fn nothing_panics_by_intent() {
    let mut breaches = Breaches::default();
    for source in sources("src") {
        for (line, text) in source.code.iter().enumerate() {
            for word in
                [".unwrap()", ".expect(", "panic!(", "todo!(", "unimplemented!(", "unreachable!(", "dbg!("]
            {
                if text.contains(word) {
                    breaches.add(&source, line, &format!("no `{word}` outside tests"));
                }
            }
            if (text.contains("#[allow(") || text.contains("#![allow(") || text.contains("#[expect("))
                && !allow_has_reason(&source, line)
            {
                breaches.add(&source, line, "a lint is switched off with `reason = ...`");
            }
        }
    }
    breaches.expect_none();
}

/// The attribute may go over several lines.
fn allow_has_reason(source: &Source, line: usize) -> bool {
    let lines: Vec<_> = source.text.lines().skip(line).take(6).collect();
    let attribute = lines.join("\n");
    attribute.split(")]").next().is_some_and(|attribute| attribute.contains("reason ="))
}

/// STYLE, What not to take: `#[ignore]` without a word.
#[test]
fn every_test_that_is_left_out_says_why() {
    let mut breaches = Breaches::default();
    for source in ["src", "tests"].into_iter().flat_map(sources) {
        for (line, text) in source.text.lines().enumerate() {
            if text.trim() == concat!("#[", "ignore]") {
                breaches.add(&source, line, "`#[ignore = ...]` names what is missing");
            }
        }
    }
    breaches.expect_none();
}

/// The rules themselves: what they must see, and what they must not mistake.
#[test]
fn the_rules_see_what_they_should() {
    let text = "//! x\nuse crate::{a::b, c::{d, e}};\nlet x = \"crate::hidden\"; // crate::hidden\nfn f() { super::super::g::h(); }\n\
                #[cfg(test)]\nmod tests {\n    use crate::hidden;\n}\nfn after() { crate::seen::x() }\n";
    let source = Source {
        path: "src/p/q/r.rs".into(),
        module: "p::q::r".into(),
        text: text.into(),
        code: code_of(text),
    };
    let found = uses(&source);
    let expected = [(1, "a::b"), (1, "c::d"), (1, "c::e"), (8, "seen::x"), (3, "p::g::h")];
    assert_eq!(found, expected.map(|(line, path)| (line, path.to_owned())));
    assert_eq!(unit_of("guard::ledger::store").unwrap().name, "guard::ledger");
    assert_eq!(unit_of("guard::Verdict").unwrap().name, "guard");
    assert!(unit_of("nowhere").is_none());
    let unit = |name: &str| unit_of(name).unwrap();
    assert!(may_use(unit("auth"), unit("smtp")) && may_use(unit("cli"), unit("guard::ledger")));
    assert!(!may_use(unit("auth"), unit("upstream")) && !may_use(unit("smtp"), unit("auth")));
}
