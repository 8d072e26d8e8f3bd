//! Findings about files with secrets that everybody can read or change; only about those that are sound.
//!
//! What cannot be used may be the wrong file, and another program's, which a cure would harm.

use super::super::local::{self, Certificate, OpenSecret, Owner, UsersFile};
use super::super::upstream;
use super::{Finding, path_word, warning};
use crate::upstream::Address;

/// Findings about the open ones of the files that are used here and to reach the upstreams.
pub(super) fn findings(here: &local::Facts, there: &[(Address, upstream::Facts)]) -> Vec<Finding> {
    let sound = here.open_secrets.iter().filter(|secret| is_sound(secret.owner, here, there));
    sound.map(finding).collect()
}

/// Whether the files of `owner` could be used.
fn is_sound(owner: Owner, here: &local::Facts, there: &[(Address, upstream::Facts)]) -> bool {
    match owner {
        Owner::Users => matches!(here.users, UsersFile::Usable { offered: 1.., .. }),
        Owner::Certificate => !matches!(here.certificate, Certificate::Unusable(_)),
        Owner::Upstream => !there.iter().any(|(_, facts)| matches!(facts, upstream::Facts::Unusable(_))),
        Owner::Webhook => here.notify.is_empty(),
    }
}

fn finding(OpenSecret { owner, path, mode }: &OpenSecret) -> Finding {
    let about = match owner {
        Owner::Users => "users",
        Owner::Certificate => "certificate",
        Owner::Upstream => "upstream",
        Owner::Webhook => "webhook",
    };
    let (path, word) = (path.display(), path_word(path));
    let may = match (mode & 0o004 != 0, mode & 0o002 != 0) {
        (true, true) => "read and change",
        (false, true) => "change",
        (_, false) => "read",
    };
    let finding = format!(
        "{path} has mode {mode:04o}, which lets everybody on this machine {may} it, and it holds a secret"
    );
    warning(about, finding, format!("Run: chmod 600 {word} (640 where Gatepost reads it by its group)"))
}

#[cfg(test)]
mod tests {
    use super::super::sample::{usable, well};
    use super::*;

    fn open_secret(owner: Owner) -> OpenSecret {
        OpenSecret { owner, path: "/etc/password".into(), mode: 0o644 }
    }

    #[test]
    fn an_open_secret_is_named_with_its_mode() {
        for (mode, part) in [
            (0o644, "/etc/password has mode 0644, which lets everybody on this machine read it"),
            (0o666, "/etc/password has mode 0666, which lets everybody on this machine read and change it"),
            (0o602, "/etc/password has mode 0602, which lets everybody on this machine change it"),
        ] {
            let secret = OpenSecret { mode, ..open_secret(Owner::Upstream) };
            let found = findings(&local::Facts { open_secrets: vec![secret], ..well() }, &[]);
            assert!(found[0].finding.starts_with(part), "{}", found[0].finding);
            assert!(found[0].cure.starts_with("Run: chmod 600 /etc/password"), "{}", found[0].cure);
        }
    }

    /// Nobody is told to change the modes of what another program needs.
    #[test]
    fn what_cannot_be_used_may_be_the_wrong_file() {
        let all =
            || [Owner::Users, Owner::Certificate, Owner::Upstream, Owner::Webhook].map(open_secret).into();
        let facts = || local::Facts { open_secrets: all(), ..well() };
        let upstreams =
            |facts| (25..).map(|port| Address::Tcp { host: "192.0.2.1".to_owned(), port }).zip(facts);
        let reached = || upstream::Facts::Unreachable("connection refused".to_owned());
        let unusable = || upstream::Facts::Unusable("no password".to_owned());
        let certificate = Certificate::Unusable("no key".to_owned());
        for (here, there, expected) in [
            (facts(), vec![reached()], &["users", "certificate", "upstream", "webhook"][..]),
            (
                local::Facts { users: usable(vec![], vec![], 0), ..facts() },
                vec![],
                &["certificate", "upstream", "webhook"],
            ),
            (
                local::Facts { users: UsersFile::Missing, ..facts() },
                vec![],
                &["certificate", "upstream", "webhook"],
            ),
            (local::Facts { certificate, ..facts() }, vec![], &["users", "upstream", "webhook"]),
            (facts(), vec![reached(), unusable()], &["users", "certificate", "webhook"]),
            (
                local::Facts { notify: vec!["no secret".to_owned()], ..facts() },
                vec![],
                &["users", "certificate", "upstream"],
            ),
        ] {
            let there: Vec<_> = upstreams(there).collect();
            let found = findings(&here, &there);
            assert_eq!(found.iter().map(|finding| finding.about).collect::<Vec<_>>(), expected);
        }
    }
}
