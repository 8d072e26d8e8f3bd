//! The words of the protocol, pure: no sockets, no conversation state, no policy.
//!
//! Octets to values and back, strictly by the grammar of RFC 5321, 6531 and their extensions. Values are forwarded as
//! they were written, so they keep the text and never normalise it.

pub mod command;
pub mod extension;
pub mod further;
mod grammar;
pub mod header;
pub mod line;
pub mod mail_data;
pub mod newline;
pub mod parameter;
pub mod path;
pub mod reply;
pub mod trace;
pub mod xtext;

pub use command::{Command, CommandError, MailCommand, RcptCommand};
pub use extension::Extensions;
pub use further::Limits;
pub use parameter::{Body, MailParameters, RcptParameters};
pub use path::{ForwardPath, Mailbox, ReversePath};
pub use reply::{Enhanced, Reply};
