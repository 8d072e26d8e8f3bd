//! CONTRACT, Commands: `demo --exit`.

use std::time::Duration;

use crate::support::program::run_within;

/// Plays an honest sender and a stolen account, shows block, notification, quarantine and release, then ends.
#[test]
fn demo_tells_the_story_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = std::process::Command::new(env!("CARGO_BIN_EXE_gatepost"));
    let finished =
        run_within(demo.args(["demo", "--exit"]).current_dir(folder.path()), b"", Duration::from_secs(120))
            .expect(0);
    let told = finished.stdout.to_lowercase();
    for word in ["honest", "block", "quarantine", "release", "550", "abuse"] {
        assert!(told.contains(word), "the story has no `{word}`:\n{}", finished.stdout);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "it leaves nothing behind");
}
