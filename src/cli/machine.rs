//! The machine's own name, for a configuration that names none.

/// The file in which most machines say what their whole name is.
const HOSTS: &str = "/etc/hosts";

/// The node name of the kernel; where that is a single label, with the domain that /etc/hosts gives it.
pub(super) fn name() -> String {
    let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if node.contains('.') {
        return node;
    }
    let hosts = std::fs::read_to_string(HOSTS).unwrap_or_default();
    qualified(&node, &hosts).unwrap_or(node)
}

/// The canonical name (the first behind the address, hosts(5)) of the line that lists `node`, where it has a domain.
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
