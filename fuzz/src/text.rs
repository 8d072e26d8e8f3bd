//! Files that people and we ourselves write: configuration, users, envelopes.

use std::path::Path;

use gatepost::auth::users::Users;
use gatepost::config::Config;
use gatepost::quarantine::Envelope;

/// An envelope that is read is the same when it is written and read again.
pub fn envelope(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(envelope) = Envelope::decode(text) else { return };
    // Its text may become longer than an envelope may be.
    let Ok(written) = envelope.encode() else { return };
    assert_eq!(Envelope::decode(&written), Ok(envelope));
}

/// A configuration is read, or its problems named, each with a line of the file.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(problems) = Config::parse(text, Path::new("config.toml"), "mx.example.org") {
        assert!(!problems.list.is_empty() && !problems.to_string().is_empty());
        for problem in &problems.list {
            assert!(
                problem.line.is_none_or(|line| (1..=text.lines().count() + 1).contains(&line)),
                "{problems}"
            );
        }
    }
}

/// A users file is read, or its first wrong line named; every user in it is found, in capitals too.
pub fn users(data: &[u8]) {
    match Users::parse(data) {
        Ok(users) => {
            for user in users.iter() {
                assert!(users.get(user.name()).is_some());
                assert!(!user.name().is_empty() && !user.name().chars().any(char::is_control));
            }
        }
        Err(problem) => assert!(problem.line >= 1 && !problem.text.is_empty()),
    }
}
