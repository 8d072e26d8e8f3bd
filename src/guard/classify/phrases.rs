//! What the texts of replies mean: tables of phrases, each with the software that says it.
//!
//! All in lower case. A phrase matches from the start of a word (`block` in `blocked`, not in `unblock`). Addresses are removed
//! from a text first: a local-part `antispam` says nothing.

/// Phrases with the same meaning.
pub(super) type Phrases = &'static [&'static str];

/// The words for relaying. A host may be called `relay.example.org` or `relay[192.0.2.1]`, which says nothing.
const RELAY: &[&str] = &["relay", "relaying", "relayed", "relays"];

/// Postfix's table of recipients denies no relaying: `User unknown in relay recipient table`, whose end Postfix may cut off.
const RELAY_TABLE: &str = "user unknown in relay";

/// What denies relaying, whatever the codes say, where a word for relaying stands in the same text.
const DENIES: Phrases = &[
    "denied", // Postfix, Exchange Online: Relay access denied; Sendmail, Cisco, Gmail
    "not permitted",
    "not allow", // Stalwart, Mimecast, MDaemon
    "doesn't allow",
    "doesn't permit",
    "allowed to relay", // cPanel's Exim: isn't allowed to relay
    "permitted to relay",
    "configured to relay", // This system is not configured to relay mail
    "authoriz",
    "authoris",
    "unauthoriz",
    "restrict",
    "only",
    "won't",
    "disallowed",
    "disabled",
    "blocked",
    "forbidden",
    "prohibited", // CommuniGate; Exim before 4: relaying to ... prohibited by administrator
    "refuse",
    "rejected",  // Domino
    "unable",    // Exchange: Unable to relay
    "not relay", // Not relaying to; Sendmail: we do not relay
    "don't relay",
    "doesn't relay",
    "cannot",
    "can't",
    "no longer relays", // apache.org
    "no relay",
    "not a relay",
    "open relay", // Mimecast: open relay not allowed
    "insecure mail relay",
    "invalid relay",
    "credentials", // Gmail: invalid credentials for relay
    "require",     // MDaemon: authentication is required for relay
    "authenticat", // MessageLabs: relay through this server without authentication
];

/// The same in other words.
const NOT_OURS: Phrases = &[
    "rcpthosts",                     // qmail: that domain isn't in my list of allowed rcpthosts
    "not a gateway",                 // IMail: not local host, not a gateway
    "i cannot deliver mail for",     // Haraka, where no plugin allowed it, which is how it denies relaying
    "is not allowed from your host", // Haraka, rcpt_to.host_list_base
    "to send to a non-local e-mail", // MailEnable: requires authentication when attempting to send to ...
    "local user only",               // Coremail
    "we don't handle mail for",
];

/// Whether a text denies relaying.
pub(super) fn denies_relaying(text: &str) -> bool {
    text.contains(RELAY[0]) && has_any(text, DENIES) && speaks_of_relaying(text) || has_any(text, NOT_OURS)
}

fn speaks_of_relaying(text: &str) -> bool {
    text.replace(RELAY_TABLE, "")
        .split(|c: char| c.is_ascii_whitespace() || "(),;:!?<>\"'".contains(c))
        .map(|word| word.strip_suffix('.').unwrap_or(word))
        // A dot makes it a host's name.
        .filter(|word| !word.contains('.'))
        .any(|word| word.split('-').any(|part| RELAY.contains(&part)))
}

/// What precedes the finding of Postfix's `reject_unverified_recipient` (smtpd_check.c, `reject_unverified_address`).
pub(super) const POSTFIX_REASONS: Phrases = &["unverified address: ", "undeliverable address: "];

/// local(8), virtual(8); the local-part follows.
const UNKNOWN_USER: &str = "unknown user: \"";

/// How Postfix's own reason begins, given without a reply, if it knows that the user does not exist.
pub(super) const POSTFIX_UNKNOWN_USER: Phrases = &[
    UNKNOWN_USER,
    "user unknown", // trivial-rewrite(8) by way of error(8): User unknown in virtual alias table
];

/// Negative answers without a reason.
pub(super) const GIVES_NO_REASON: Phrases = &[
    "callout verification failure", // Exim: Previous (cached) callout verification failure
    "callout verification failed",  // Exim, where no reply follows: connection dropped
    "earlier callout reused",       // Exim
    "earlier verification reused",  // Exim
    "verify callout",               // Exim: Could not complete recipient verify callout
    "address verification in progress", // Postfix, verify(8)
];

/// The finding, or the quoted reply, is about the sender's address: a sender callout.
pub(super) const ABOUT_THE_SENDER: Phrases = &[
    "sender address rejected", // Postfix, reject_unverified_sender
    "sender verify fail",      // Exim
    "sender verification fail",
    "verification failed for <", // Exim, in front of Called:, Sent:, Response:
    "callback setup failed while verifying <", // Exim
    "postmaster verification failed", // Exim
];

/// Texts that contain a policy phrase but are not about policy.
pub(super) const INNOCENT: Phrases = &[
    "mailbox name not allowed", // RFC 5321 4.2.3 of 553, for example IONOS
    "rule imposed mailbox access for  refused: user invalid", // MailMarshal; the address is taken out
];

/// The sender: its address, host, name or connection.
pub(super) const SENDER: Phrases = &[
    "sender", // Exim: Sender verify failed; and everybody
    "mail from",
    "return path",
    "return-path",
    "reverse path",
    "reverse-path",
    "from address",
    "envelope from",         // Mimecast
    "header from",           // Mimecast
    "purported responsible", // Exchange: can't determine Purported Responsible Address
    "expediteur",            // Orange
    "emetteur",              // Orange
    "resource record",       // GMX: invalid DNS MX or A/AAAA resource record
    "reverse dns",
    "rdns",
    "ptr record",
    "helo",
    "ehlo",
    "your host",
    "your server",
    "your mail server",
    "your ip",
    "your domain",
    "your hostname",
    "your network is",
    "from your network",
    "dynamic ip",
    "dynamic address",
    "client host", // Postfix
    "client ip",   // Exchange Online: domain mismatches client ip
    "ip address",
    "sending ip",
    "bounces", // {no bounces allowed}
    "batv",    // MDaemon, SonicWall
];

/// The receiver's rules.
pub(super) const POLICY: Phrases = &[
    "policy",                     // Denied by policy
    "policies",                   // Mimecast: email rejected due to security policies
    "administrative prohibition", // Exim, deny without a message; Mimecast
    "administratively",
    "prohibited",
    "denied", // Access denied
    "forbidden",
    "not allowed", // Mimecast: Host network not allowed
    "not permitted",
    "not authorized", // Exchange: RESOLVER.RST.NotAuthorized
    "not authorised",
    "unauthorized",
    "restricted", // Coremail
    "restriction",
    "violation",             // Protocol violation
    "refuses",               // qmail: recipient refuses to accept your mail
    "rejected by recipient", // QQ: Mail is rejected by recipients, who have listed the sender
    "mx only",               // Coremail: no smtp MX only
    "smtp server of your isp",
    "returned mail not accepted",
    "preferences",  // Facebook: Refused due to recipient preferences
    "subscriber",   // lists
    "members-only", // lists
    "not a member", // lists
    "mail content", // QQ: Mail content denied
    "message content",
    "for content",
    "content reject",
    "content filter",
    "virus",
    "malware",
    "phish",
    "backscatter",
    "rule imposed", // MailMarshal; see INNOCENT
    "mail loop",
    "loop detected",
    "bad sequence", // of commands
    "message size",
    "size limit",
    "too large",
    "too big",
    "utf8",           // Exim: no support for SMTPUTF8
    "internationali", // Exim: no support for internationalised mailbox name
];

/// Reputation and rate.
pub(super) const REPUTATION: Phrases = &[
    "spam",  // Spamhaus, SpamCop too
    "block", // blocked using ..., blocklist; Barracuda: (...:blocked)
    "blacklist",
    "black list",
    "denylist",
    "banned", // Exchange Online: banned sending IP
    "listed at",
    "listed by",
    "listed in http",
    "is listed",
    "rbl",
    "dnsbl",
    "reputation",
    "abus", // abuse, abusive; SFR: Abus detecte
    "suspicious",
    "suspected", // QQ: Suspected bounce attacks
    "unsolicited",
    "bulk",
    "complaint",
    "greylist",
    "graylist",
    "rate limit",
    "rate-limit",
    "ratelimit",
    "at a rate", // Gmail: is receiving mail at a rate that ...
    "frequency", // QQ: Ip frequency limited
    "throttl",
    "limit exceeded",
    "limit reached",
    "limit has been", // reached, exceeded
    "sending limit",
    "message limit",
    "recipient limit",
    "recipients exceeded",
    "exceeded your",     // daily sending limit
    "exceeded the max", // cPanel: Domain ... has exceeded the max emails per hour; GoDaddy: ... messages per session
    "failed recipients", // Exim, where a local rule counts them: Max 11 failed recipients allowed
    "too many",
    "too fast",
    "excessive",
    "compromised",
    "outbound mail",
    "outbound message",
    "outgoing mail",
    "outgoing message",
    "hourly limit",
    "daily limit",
    "recipients reached",
    "you have reached",
    "temporar",   // temporary, temporarily
    "mi:",        // 163.com: MI:SPF, MI:DMC
    "rp:",        // 163.com: RP:TRC, RP:RCL
    "dt:spm",     // 163.com
    "open proxy", // the client is said to be one
    "go away",
];

/// Trouble of the receiver's, or on the way to it.
pub(super) const TROUBLE: Phrases = &[
    "service unavailable",
    "service currently unavailable",
    "service is unavailable",
    "service is currently unavailable",
    "service not available",
    "internal error",
    "internal server error",
    "internal system error",
    "server error",
    "system error",
    "system failure",
    "local error", // Local error in processing, RFC 5321 4.2.3 of 451
    "at this time",
    "try again later", // GMX: Failure sending mail. Try again later
    "try later",
    "please try again", // but not: check the address and try again
    "essayer plus tard",
    "lookup fail",
    "lookup error",
    "ldap error",
    "database error",
    "connection refused",
    "connection rejected",
    "connection dropped",
    "connection closed by",
    "connection lost",
    "connection reset",
    "connection timed",
    "connection fail",
    "accepting connections", // ESMTP not accepting connections
    "cannot connect",
    "can't connect",
    "could not connect",
    "unable to connect",
    "timed out",
    "timeout",
    "host unreachable",
    "host is unreachable",
    "network unreachable",
    "network is unreachable",
    "callout verification error",
    "callout failed",
    "too busy",
    "is busy",
    "overloaded",
    "no route to host",
    "hop count",
    "software error",
    "error in processing",
    "dot-lock",
    "system unavailable",
    "database unavailable",
    "dns fail",
    "dns error",
    "unable to verify",
    "cannot verify",
    "can't verify",
    "could not verify",
    "could not be verified",
    "could not complete", // Exim: Could not complete recipient verify
];

/// Authentication of the client, the message or the channel.
pub(super) const AUTHENTICATION: Phrases = &[
    "authent",   // authentication, authenticate
    "unauthent", // Unauthenticated senders not allowed
    "smtp auth",
    "not logged in", // Postfix
    "log in",
    "login",
    "authoriz",
    "authoris",
    "spf",
    "dkim",
    "dmarc",
    "starttls",
    "encryption",
    "requires tls", // Mimecast
    "tls required",
    "tls is", // mandatory, required
    "secure connection",
    "security reason",
    "receive your mail before", // POP before SMTP
];

/// What the enhanced codes 5.2.x mean, in words: the mailbox exists.
pub(super) const MAILBOX_EXISTS: Phrases = &[
    "quota",
    "overquota",
    "over-quota",
    "mailbox full",
    "is full", // cPanel's Exim: mailbox is full; Oracle: mailfolder is full
    "full mailbox",
    "inbox full",
    "pleine",  // Orange: Boite du destinataire pleine
    "used up", // the user's space has been used up
    "exceeded the local limit",
    "exceeds allowed", // User mailbox exceeds allowed size
    "exceeds the",
    "exceeds its",
    "exceeded the limit",
    "exceeded its",
    "would exceed",
    "over the maximum",
    "over limit",
    "over the limit",
    "over its limit",
    "enough space",
    "space left",
    "space not enough",
    "space available",
    "any more mail",
    "insufficient",
    "too much mail",
    "storage", // exceeded storage allocation
    "disk space",
    "diskspace",
    "disk full",
    "disabled",
    "suspended",  // Coremail: User suspended
    "locked",     // Coremail: User locked
    "frozen",     // i.ua: Mailbox is frozen
    "inactive",   // everyone.net: Account inactive
    "not active", // hMailServer: Account is not active
    "deactivated",
    "hangup", // Coremail: User hangup
];

/// Phrases that outweigh the codes 5.1.x: the mailbox is full or its owner chooses, or we have sent too much.
pub(super) const OUTWEIGHS_THE_CODE: Phrases = &[
    "quota", // Comcast: 552 5.1.1 recipient rejected - extended quota violation; qmail-toaster; MailFoundry
    "overquota", // Orange: 552 5.1.1 Boite du destinataire pleine. Recipient overquota
    "mailbox full",
    "mailbox is full",
    "full mailbox",
    "inbox full",
    "inbox is full",
    "size limit",
    "sending limit",
    "limit exceeded",
    "limit reached",
    "too many", // GoDaddy: 550 5.1.1 IP has sent to too many recipients this hour
    "rate limit",
    "policy error",          // Zoho: 552 5.1.1 Mailbox delivery failure policy error
    "recipient preferences", // Facebook: 550 5.1.1 RCP-P2 Refused due to recipient preferences
];

/// Whether the text contains one of the phrases, each of which begins with a letter or a digit, from the start of a word.
pub(super) fn has_any(text: &str, phrases: Phrases) -> bool {
    // There are far fewer words in a text than phrases, so it is gone through once.
    let octets = text.as_bytes();
    let mut in_word = false;
    octets.iter().enumerate().any(|(at, octet)| {
        let was_in_word = std::mem::replace(&mut in_word, octet.is_ascii_alphanumeric());
        in_word
            && !was_in_word
            && phrases.iter().any(|phrase| {
                phrase.as_bytes().first() == Some(octet) && octets[at..].starts_with(phrase.as_bytes())
            })
    })
}

/// The longest local-part that is removed in front of an `@`, in octets (RFC 5321 4.5.3.1.1 allows 64).
const MAX_LOCAL_PART: usize = 256;

/// Returns the first `limit` octets of `text` in lower case, without the recipient's names, which a client chose.
pub(super) fn without_names(text: &str, limit: usize) -> String {
    let mut text = without_addresses(text, limit);
    // Postfix puts nothing but the quotation mark after the local-part it repeats.
    let is_its_reason = |at: usize| POSTFIX_REASONS.iter().any(|reason| text[..at].ends_with(reason));
    let at = text.match_indices(UNKNOWN_USER).map(|(at, _)| at).find(|at| is_its_reason(*at));
    if let Some(begin) = at.map(|at| at + UNKNOWN_USER.len()) {
        let end = text.rfind('"').filter(|end| *end >= begin).unwrap_or(text.len());
        text.replace_range(begin..end, "");
    }
    text
}

fn without_addresses(text: &str, limit: usize) -> String {
    let octets = text.as_bytes();
    let octets = octets.get(..limit).unwrap_or(octets);
    let mut out: Vec<u8> = Vec::with_capacity(octets.len());
    let mut rest = octets.iter().peekable();
    while let Some(octet) = rest.next() {
        if *octet != b'@' {
            out.push(octet.to_ascii_lowercase());
            continue;
        }
        out.truncate(out.len() - local_part_length(&out));
        while rest.next_if(|octet| is_domain(**octet)).is_some() {}
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// How many octets at the end of `out` are a local-part, quoted or not.
fn local_part_length(out: &[u8]) -> usize {
    let back = || out.iter().rev().take(MAX_LOCAL_PART);
    match out {
        [.., b'"'] => back().skip(1).position(|octet| *octet == b'"').map_or(1, |inside| inside + 2),
        _ => back().take_while(|octet| is_local(**octet)).count(),
    }
}

/// RFC 5322 3.2.3 atext, the dot, and RFC 6531's non-ASCII; the colon and all brackets end it.
fn is_local(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"!#$%&*+-/=?^_`{|}~.".contains(&octet) || !octet.is_ascii()
}

fn is_domain(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.') || !octet.is_ascii()
}
