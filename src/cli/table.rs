//! Tables for people: aligned, and printed as the rows come, since there may be 100,000 of them.
//!
//! Columns are as wide as their widest cell so far; on a terminal long cells are cut.

use std::io::{IsTerminal, stdout};

use super::output::{Failed, Output};
use super::text::{clean, cut};

/// So many rows are looked at before the first is printed.
const TOGETHER: usize = 100;

/// A column: its title, and how wide it may be on a terminal.
pub(super) type Column = (&'static str, usize);

pub(super) struct Table<const N: usize> {
    columns: [Column; N],
    widths: [usize; N],
    waiting: Vec<[String; N]>,
    on_terminal: bool,
    printed: bool,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(columns: [Column; N]) -> Self {
        let widths = columns.map(|(title, _)| title.len());
        Self { columns, widths, waiting: Vec::new(), on_terminal: stdout().is_terminal(), printed: false }
    }

    pub(super) fn row(&mut self, output: &mut Output, cells: [String; N]) -> Result<(), Failed> {
        self.waiting.push(cells);
        if self.waiting.len() >= TOGETHER { self.print(output) } else { Ok(()) }
    }

    /// Prints what waits; says whether there was any row at all.
    pub(super) fn finish(mut self, output: &mut Output) -> Result<bool, Failed> {
        self.print(output)?;
        Ok(self.printed)
    }

    fn print(&mut self, output: &mut Output) -> Result<(), Failed> {
        let mut rows = std::mem::take(&mut self.waiting);
        for row in &mut rows {
            for ((cell, (_, most)), width) in row.iter_mut().zip(&self.columns).zip(&mut self.widths) {
                let shown = clean(cell);
                let shown =
                    if self.on_terminal { cut(&shown, *most).into_owned() } else { shown.into_owned() };
                *width = shown.chars().count().max(*width);
                *cell = shown;
            }
        }
        if !self.printed && !rows.is_empty() {
            self.printed = true;
            let titles = self.columns.map(|(title, _)| title.to_owned());
            output.line(&self.aligned(&titles))?;
        }
        for row in &rows {
            output.line(&self.aligned(row))?;
        }
        output.flush()
    }

    fn aligned(&self, cells: &[String; N]) -> String {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(&self.widths) {
            let blanks = width.saturating_sub(cell.chars().count()) + 2;
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', blanks));
        }
        line.truncate(line.trim_end().len());
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stand_below_each_other() {
        let mut table = Table::new([("ACCOUNT", 20), ("STATE", 10), ("N", 5)]);
        table.widths = [9, 7, 1];
        let row = ["user:anna", "blocked", ""].map(str::to_owned);
        assert_eq!(table.aligned(&row), "user:anna  blocked");
        let row = ["größe", "x", "7"].map(str::to_owned);
        assert_eq!(table.aligned(&row), "größe      x        7");
    }
}
