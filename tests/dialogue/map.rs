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
