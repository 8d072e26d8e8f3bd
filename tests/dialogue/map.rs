//! `docs/rfc.md`: the rules of the standards and the scripts that prove them.

use std::collections::BTreeSet;
use std::path::Path;

use crate::scripts;

/// The scripts that the map names: what stands in backquotes and ends with `.smtp`.
fn named() -> BTreeSet<String> {
    let map = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rfc.md")).unwrap();
    let quoted = map.split('`').skip(1).step_by(2);
    quoted.filter_map(|word| word.strip_suffix(".smtp")).map(str::to_owned).collect()
}

/// STYLE, Proof: every script that the map names is there, and every script is in the map.
#[test]
fn the_map_names_every_script_and_no_other() {
    let mut there: BTreeSet<String> = scripts("").into_iter().map(|script| script.name).collect();
    there.extend(scripts("known").into_iter().map(|script| format!("known/{}", script.name)));
    let named = named();
    let missing: Vec<_> = named.difference(&there).collect();
    let unnamed: Vec<_> = there.difference(&named).collect();
    assert!(missing.is_empty(), "docs/rfc.md names scripts that are not there: {missing:?}");
    assert!(unnamed.is_empty(), "docs/rfc.md does not name {unnamed:?}");
}

/// A row of the map: the heading above it, and itself.
fn rows() -> Vec<(String, String)> {
    let map = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rfc.md")).unwrap();
    let mut heading = String::new();
    let mut rows = Vec::new();
    for line in map.lines() {
        if let Some(text) = line.strip_prefix("## ") {
            heading = text.to_owned();
        } else if line.starts_with('|') {
            rows.push((heading.clone(), line.to_owned()));
        }
    }
    rows
}

/// A script says in its first line which standard it proves: it stands in the map where that standard is.
#[test]
fn every_script_stands_with_the_standard_that_it_names() {
    let rows = rows();
    let mut astray = Vec::new();
    let mut compared = 0;
    for (folder, prefix) in [("", ""), ("known", "known/")] {
        for script in scripts(folder) {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogue").join(folder);
            let text = std::fs::read_to_string(path.join(format!("{}.smtp", script.name))).unwrap();
            let first = text.lines().next().unwrap_or_default();
            let Some(number) = first.strip_prefix("# RFC ").and_then(|rest| rest.split(' ').next()) else {
                continue;
            };
            let quoted = format!("`{prefix}{}.smtp`", script.name);
            let with_it = |(heading, row): &(String, String)| {
                let section = row.trim_start_matches('|').split('|').next().unwrap_or_default();
                row.contains(&quoted) && (heading.contains(number) || section.contains(number))
            };
            compared += 1;
            if !rows.iter().any(with_it) {
                astray.push(format!("{}: {first}", script.name));
            }
        }
    }
    assert!(compared > 150, "{compared} scripts name a standard");
    assert!(astray.is_empty(), "docs/rfc.md has them elsewhere:\n{}", astray.join("\n"));
}

/// Where the map names a file for a proof, there is one.
#[test]
fn every_file_that_the_map_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = rows().into_iter().flat_map(|(_, row)| {
        let words = row
            .split([' ', '`', '(', ')', ',', ';', '|', '*'])
            .map(|word| word.trim_end_matches(['.', ':']).to_owned());
        words
            .filter(|word| ["tests/", "src/", "docs/"].iter().any(|folder| word.starts_with(folder)))
            .collect::<Vec<_>>()
    });
    let missing: Vec<String> = files.filter(|file| !root.join(file).exists()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
