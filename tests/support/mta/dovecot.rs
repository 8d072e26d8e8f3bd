//! Dovecot's submission service: it wants a login, has no queue, and passes each command on to the MTA behind it. The syntax of its
//! configuration changed with 2.4, Debian 13's.

use std::net::SocketAddr;
use std::path::Path;

/// Every name has it. Dovecot 2.3 would split it at a blank.
pub(super) const PASSWORD: &str = "what-dovecot-wants";

pub(super) fn dovecot_conf(
    cache: &Path,
    dir: &Path,
    domain: &str,
    address: SocketAddr,
    relay: SocketAddr,
) -> String {
    let d = dir.display();
    let is_2_3 = std::fs::read_dir(cache.join("debs")).into_iter().flatten().flatten().any(|deb| {
        // `dovecot-core_1%3a2.3.19.1...`
        deb.file_name().to_string_lossy().starts_with("dovecot-core_1%3a2.3.")
    });
    let users = if is_2_3 {
        format!(
            "disable_plaintext_auth = no\n\
             passdb {{\n  driver = static\n  args = password={PASSWORD}\n}}\n\
             userdb {{\n  driver = static\n  args = uid=dovecot gid=dovecot home={d}/mail\n}}\n\
             mail_location = maildir:~/Maildir\n"
        )
    } else {
        format!(
            "dovecot_config_version = 2.4.1\n\
             dovecot_storage_version = 2.4.1\n\
             auth_allow_cleartext = yes\n\
             passdb static {{\n  password = {PASSWORD}\n}}\n\
             userdb static {{\n  fields {{\n    uid = dovecot\n    gid = dovecot\n    home = {d}/mail\n  }}\n}}\n\
             mail_driver = maildir\n\
             mail_path = ~/Maildir\n"
        )
    };
    format!(
        "{users}\
         protocols = submission\n\
         base_dir = /run/dovecot\n\
         log_path = {d}/maillog\n\
         ssl = no\n\
         listen = {}\n\
         hostname = mx.{domain}\n\
         service submission-login {{\n  inet_listener submission {{\n    port = {}\n  }}\n}}\n\
         submission_relay_host = {}\n\
         submission_relay_port = {}\n\
         submission_max_mail_size = 100M\n",
        address.ip(),
        address.port(),
        relay.ip(),
        relay.port(),
    )
}
