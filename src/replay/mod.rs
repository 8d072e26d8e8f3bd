//! What settings would have done to mail of the past: log lines -> records -> attempts -> trial -> report.
//!
//! [`lines`] cuts a stream into lines, [`head`] tells when and by which program each was written, [`postfix`], [`exim`] and [`gatepost`] what
//! it says; [`attribution`] finds the account responsible, [`order`] restores the order of asking. All of it is pure, in memory that does
//! not grow with the log, and makes of any octets whatever nothing worse than a line that is counted as unreadable.

pub mod attribution;
pub mod calendar;
mod exim;
mod gatepost;
pub mod head;
pub mod lines;
pub mod order;
mod postfix;
mod recent;
pub mod record;

use head::Program;
use record::Said;

/// What the rest of a line says, behind its head.
///
/// # Errors
/// The line breaks off.
pub fn say(program: Program, rest: &str) -> Said<'_> {
    match program {
        Program::Smtpd(process) => postfix::smtpd(process, rest),
        Program::Postfix => postfix::other(rest),
        Program::Exim => exim::read(rest),
        Program::Gatepost => gatepost::read(rest),
        Program::Other => Ok(None),
    }
}
