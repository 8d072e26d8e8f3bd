//! What settings would have done to mail of the past: log lines -> records -> attempts -> trial -> report.
//!
//! [`lines`] cuts a stream into lines, [`head`] tells when and by which program each was written, [`postfix`], [`exim`] and [`gatepost`] what
//! it says; [`attribution`] finds the account responsible, [`order`] restores the order of asking, [`trial`] tries the settings, [`report`]
//! says what came of it, and [`plot`] draws it. All of it is pure, in memory that does
//! not grow with the log, and makes of any octets whatever nothing worse than a line that is counted as unreadable.

pub mod attribution;
pub mod calendar;
mod exim;
mod gatepost;
pub mod head;
pub mod lines;
pub mod log;
pub mod order;
pub mod plot;
mod postfix;
mod recent;
pub mod record;
pub mod report;
pub mod trial;

use head::Program;
use record::Said;

use crate::guard::classify::Rules;

/// `[limit] invalid_recipients`, if nobody says otherwise.
pub const LIMIT: u32 = 100;
/// `[detection] usual_share`, if nobody says otherwise.
pub const USUAL_SHARE: f64 = 0.05;

/// What the rest of a line says, behind its head; `rules` are an operator's own of what refusals mean.
///
/// # Errors
/// The line breaks off.
pub fn say<'a>(program: Program, rest: &'a str, rules: &Rules) -> Said<'a> {
    match program {
        Program::Smtpd(process) => postfix::smtpd(process, rest, rules),
        Program::Postfix => postfix::other(rest, rules),
        Program::Exim => exim::read(rest, rules),
        Program::Gatepost => gatepost::read(rest, rules),
        Program::Other => Ok(None),
    }
}

#[cfg(test)]
mod tests;
