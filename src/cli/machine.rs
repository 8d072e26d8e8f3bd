//! The name of this machine, used if the configuration has none.

/// The file with the full name on most machines.
const HOSTS: &str = "/etc/hosts";

/// The kernel's node name; if that is a single label, with the domain from /etc/hosts.
pub(super) fn name() -> String {
    let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if node.contains('.') {
        return node;
    }
    let hosts = std::fs::read_to_string(HOSTS).unwrap_or_default();
    qualified(&node, &hosts).unwrap_or(node)
}

/// The canonical name (the first after the address, hosts(5)) in the line that lists `node`, if it has a domain.
fn qualified(node: &str, hosts: &str) -> Option<String> {
    hosts.lines().find_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let mut names = line.split_whitespace().skip(1);
        let canonical = names.next()?;
        let listed = canonical == node || names.any(|name| name == node);
        (listed && canonical.strip_prefix(node)?.starts_with('.')).then(|| canonical.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_name() {
        for (hosts, expected) in [
            ("127.0.0.1 localhost\n127.0.1.1\tmail.example.org mail\n", Some("mail.example.org")),
            ("127.0.0.1 localhost mail\n", None),
            ("127.0.1.1 mail\n", None),
            ("# 127.0.1.1 mail.example.org mail\n", None),
            ("192.0.2.1 other.example.org mail # alias\n", None),
            ("", None),
        ] {
            assert_eq!(qualified("mail", hosts).as_deref(), expected, "{hosts}");
        }
    }
}
