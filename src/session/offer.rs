//! What EHLO offers: Gatepost's own capabilities and the upstream's; and hence what MAIL may ask for.
//!
//! RFC 5321 4.1.1.1; the RFCs of the keywords are in smtp/extension.rs and smtp/further.rs.

use crate::smtp::{Extensions, Limits, MailParameters, further};

/// Returns the part of the upstream's offer that a client gets, without the names of AUTH and XCLIENT: an extension that
/// depends on another counts only with it.
pub(super) fn offered(upstream: Option<&Extensions>, encrypted: bool) -> Extensions {
    let mut offered = upstream.map(Extensions::for_mail).unwrap_or_default();
    // RFC 3030 3: binary content is sent by BDAT, on both sides.
    offered.binary_mime &= offered.chunking;
    // RFC 8689 2: both hops must be encrypted.
    offered.further.require_tls &= encrypted;
    offered
}

/// The keywords of the upstream's extensions that we pass on.
pub(super) fn passed_on(offered: &Extensions) -> Vec<String> {
    let plain = [
        (offered.eight_bit_mime, "8BITMIME"),
        (offered.dsn, "DSN"),
        (offered.smtputf8, "SMTPUTF8"),
        (offered.binary_mime, "BINARYMIME"),
    ];
    let mut keywords: Vec<String> =
        plain.iter().filter(|(has, _)| *has).map(|(_, keyword)| (*keyword).to_owned()).collect();
    keywords.extend(offered.further.keywords());
    keywords
}

/// Returns the narrower of both sides' limits.
pub(super) fn limits(max_recipients: usize, max_transactions: u32, offered: &Extensions) -> Limits {
    let ours = Limits {
        mail_max: (max_transactions > 0).then_some(max_transactions),
        rcpt_max: u32::try_from(max_recipients).ok(),
        ..Limits::default()
    };
    ours.smaller(offered.further.limits)
}

/// Returns the first parameter whose value exceeds the offer: a BY that returns the message sooner than the minimum
/// by-time (RFC 2852 4), a HOLDFOR or HOLDUNTIL beyond the maximum (RFC 4865 4), or a HOLDUNTIL on a day that does not
/// exist.
pub(super) fn beyond(parameters: &MailParameters, offered: &Extensions) -> Option<&'static str> {
    let further = &offered.further;
    if parameters.by_returns_within().zip(further.deliver_by).is_some_and(|(time, least)| time < least) {
        return Some("BY");
    }
    let bounds = further.future_release.as_ref()?;
    if parameters.hold_seconds().is_some_and(|seconds| seconds > bounds.max_interval) {
        return Some("HOLDFOR");
    }
    let Some(until) = further::moment(parameters.hold_until.as_ref()?) else { return Some("HOLDUNTIL") };
    further::moment(&bounds.max_date_time).is_some_and(|latest| until > latest).then_some("HOLDUNTIL")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::further::Further;

    #[test]
    fn what_a_session_keeps_of_the_offer() {
        let names = || vec!["PLAIN".to_owned(), "LOGIN".to_owned()];
        let further =
            Further { deliver_by: Some(60), mt_priority: Some("MIXER".to_owned()), ..Further::default() };
        let mail =
            Extensions { dsn: true, chunking: true, binary_mime: true, further, ..Extensions::default() };
        let upstream = Extensions { auth: names(), xclient: names(), ..mail.clone() };
        assert_eq!(offered(Some(&upstream), true), mail);
    }
}
