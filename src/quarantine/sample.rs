//! An envelope for tests.
#![cfg(test)]

use std::borrow::Cow;

use super::checksum::Checksum;
use super::envelope::{Envelope, Recipient, RecipientState, SessionFacts, TlsFacts, VERSION};
use crate::clock::Timestamp;
use crate::id::{QuarantineId, SessionId};
use crate::smtp::{ForwardPath, MailParameters, RcptParameters, Reply, ReversePath};

/// Returns an id born at `millis`.
pub(crate) fn id(millis: u64) -> QuarantineId {
    QuarantineId::new(Timestamp::from_millis(millis))
}

pub(crate) fn reply() -> Reply {
    Reply { code: 250, enhanced: None, text: Cow::Borrowed("Ok: queued as 4F2A91B0C3") }
}

/// Returns an envelope that fits a message of `content`.
pub(crate) fn envelope(id: QuarantineId, content: &[u8]) -> Envelope {
    Envelope {
        version: VERSION,
        id,
        account: "anna".parse().unwrap(),
        parked: id.born(),
        reason: "blocked: 100 invalid recipients within 1 h".into(),
        block: None,
        session: SessionFacts {
            id: SessionId::new(id.born()),
            client: "192.0.2.1:50000".parse().unwrap(),
            client_name: None,
            helo: Some("laptop".into()),
            extended: true,
            login: Some("anna".into()),
            tls: Some(TlsFacts { version: "TLSv1.3".into(), cipher: "TLS_AES_256_GCM_SHA384".into() }),
        },
        reverse_path: ReversePath::Null,
        parameters: MailParameters::default(),
        mail_reply: Some(reply()),
        recipients: vec![Recipient {
            forward_path: ForwardPath::Postmaster("Postmaster".into()),
            parameters: RcptParameters::default(),
            upstream: None,
            state: RecipientState::Pending,
        }],
        size: content.len() as u64,
        sha256: sha256(content),
        subject: Some("Grüße".into()),
        trace: "Received: from laptop\r\n".into(),
        treatment: super::envelope::Treatment::default(),
        told: reply(),
        told_queue_id: Some("4F2A91B0C3".into()),
        due: None,
        release: None,
    }
}

pub(crate) fn sha256(content: &[u8]) -> String {
    Checksum::of(content).to_string()
}
