//! What certain settings would have done to past mail: log lines -> records -> attempts -> trial -> report.
//!
//! [`lines`] splits a stream into lines, [`head`] finds when and by which program each was written, [`postfix`],
//! [`exim`] and [`gatepost`] what it says; [`attribution`] finds the responsible account, [`order`] restores the
//! chronological order, [`trial`] applies the settings, [`report`] summarizes the result, and [`plot`] draws it. All of
//! it is pure and uses memory that does not grow with the log; arbitrary octets result in nothing worse than a line
//! counted as unreadable.

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

/// Reads the rest of a line, after its head; `rules` are the operator's own for the meaning of refusals.
///
/// # Errors
/// The line is truncated.
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
