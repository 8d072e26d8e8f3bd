//! OpenSMTPD: who is unknown at RCPT is refused there, as it comes. It has no XCLIENT, no CHUNKING, no PIPELINING.

use std::net::SocketAddr;

pub(super) fn smtpd_conf(domain: &str, address: SocketAddr) -> String {
    format!(
        "queue ttl 1h\n\
         smtp max-message-size \"100M\"\n\
         listen on {} port {} hostname \"mx.{domain}\"\n\
         action \"local\" maildir\n\
         match from any for domain \"{domain}\" action \"local\"\n",
        address.ip(),
        address.port()
    )
}
