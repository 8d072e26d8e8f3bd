//! Tables for people: aligned, and printed while rows arrive, since there may be 100,000 of them.
//!
//! On a terminal a table fits its width: long cells are cut, and the least important columns are dropped. Elsewhere all
//! columns are printed, each as wide as its widest cell so far; only cells longer than any address are cut.

use std::io::{IsTerminal, stdout};

use super::output::{Failed, Output};
use super::text::{clean, cut, width};

/// How many rows are examined before the first is printed.
const TOGETHER: usize = 100;
/// The blanks between two columns.
const GAP: usize = 2;
/// The longest cell anywhere: an address (RFC 5321 4.5.3.1.3) is shown whole, but not a stranger's subject of 200,000
/// characters.
const LONGEST: usize = 300;
/// The width of a terminal that does not report it.
const USUAL_WIDTH: usize = 80;

/// A column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    title: &'static str,
    /// Its minimum width on a terminal, unless all its cells are shorter.
    least: usize,
    /// Its maximum width on a terminal.
    most: usize,
    /// Columns of low rank are dropped last; 1 is always shown.
    rank: u8,
}

/// A column between `least` and `most` wide on a terminal; if not all columns fit, those with the lowest `rank` stay.
pub(super) const fn column(title: &'static str, rank: u8, least: usize, most: usize) -> Column {
    Column { title, least, most, rank }
}

pub(super) struct Table<const N: usize> {
    columns: [Column; N],
    /// 0: not shown.
    widths: [usize; N],
    waiting: Vec<[String; N]>,
    /// The width of the terminal; `None` if there is none.
    terminal: Option<usize>,
    printed: bool,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(columns: [Column; N]) -> Self {
        Self::on(columns, terminal_width())
    }

    fn on(columns: [Column; N], terminal: Option<usize>) -> Self {
        let widths = columns.map(|column| width(column.title));
        Self { columns, widths, waiting: Vec::new(), terminal, printed: false }
    }

    pub(super) fn row(&mut self, output: &mut Output, cells: [String; N]) -> Result<(), Failed> {
        self.waiting.push(cells);
        if self.waiting.len() >= TOGETHER { self.print(output) } else { Ok(()) }
    }

    /// Prints the remaining rows; returns whether there were any rows at all.
    pub(super) fn finish(mut self, output: &mut Output) -> Result<bool, Failed> {
        self.print(output)?;
        Ok(self.printed)
    }

    fn print(&mut self, output: &mut Output) -> Result<(), Failed> {
        for line in self.lines() {
            output.line(&line)?;
        }
        output.flush()
    }

    /// The pending lines, preceded by the titles the first time.
    fn lines(&mut self) -> Vec<String> {
        let mut rows = std::mem::take(&mut self.waiting);
        for cell in rows.iter_mut().flatten() {
            *cell = cut(&clean(cell), LONGEST).into_owned();
        }
        // On a terminal, the columns already shown keep their width.
        if self.terminal.is_none() || !self.printed {
            for row in &rows {
                for (cell, widest) in row.iter().zip(&mut self.widths) {
                    *widest = width(cell).max(*widest);
                }
            }
        }
        let mut lines = Vec::new();
        if !self.printed && !rows.is_empty() {
            self.printed = true;
            if let Some(terminal) = self.terminal {
                self.widths = fit(&self.columns, self.widths, terminal);
            }
            lines.push(self.aligned(&self.columns.map(|column| column.title.to_owned())));
        }
        lines.extend(rows.iter().map(|row| self.aligned(row)));
        lines
    }

    fn aligned(&self, cells: &[String; N]) -> String {
        let mut line = String::new();
        for (cell, column) in cells.iter().zip(&self.widths).filter(|(_, width)| **width > 0) {
            let shown = if self.terminal.is_some() { cut(cell, *column) } else { cell.into() };
            let blanks = column.saturating_sub(width(&shown)) + GAP;
            line.push_str(&shown);
            line.extend(std::iter::repeat_n(' ', blanks));
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// The width of each column on a terminal, given the `widest` cell of each; 0 for columns that do not fit.
fn fit<const N: usize>(columns: &[Column; N], widest: [usize; N], terminal: usize) -> [usize; N] {
    let mut ranked: Vec<_> = columns.iter().zip(widest).enumerate().collect();
    ranked.sort_by_key(|(_, (column, _))| column.rank);
    let mut widths = [0; N];
    let mut left = terminal + GAP;
    for (place, (column, widest)) in &ranked {
        let least = column.least.min(*widest);
        if column.rank == 1 || least + GAP <= left {
            widths[*place] = least;
            left = left.saturating_sub(least + GAP);
        }
    }
    for (place, (column, widest)) in ranked {
        if widths[place] > 0 {
            let more = widest.min(column.most).saturating_sub(widths[place]).min(left);
            widths[place] += more;
            left -= more;
        }
    }
    widths
}

/// The width of standard output in characters; `None` if it is not a terminal.
fn terminal_width() -> Option<usize> {
    let stdout = stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let said = rustix::termios::tcgetwinsize(&stdout).map_or(0, |size| usize::from(size.ws_col));
    Some(if said == 0 { USUAL_WIDTH } else { said })
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        column("ID", 1, 8, 8),
        column("TIME", 4, 6, 20),
        column("ACCOUNT", 2, 8, 12),
        column("SUBJECT", 3, 10, 40),
    ];

    fn table(terminal: Option<usize>) -> Table<4> {
        let mut table = Table::on(COLUMNS, terminal);
        for row in [
            ["00000001", "16:05:28", "user:anna", "Größe"],
            ["00000002", "16:05:29", "user:somebody@example.org", "漢字漢字漢字漢字漢字漢字"],
        ] {
            table.waiting.push(row.map(str::to_owned));
        }
        table
    }

    #[test]
    fn all_is_shown_where_there_is_no_terminal() {
        let lines = table(None).lines();
        let expected = [
            "ID        TIME      ACCOUNT                    SUBJECT",
            "00000001  16:05:28  user:anna                  Größe",
            "00000002  16:05:29  user:somebody@example.org  漢字漢字漢字漢字漢字漢字",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn no_cell_is_endless() {
        let mut table = Table::on(COLUMNS, None);
        let subject = "x".repeat(200_116);
        table.waiting.push(["00000001", "16:05:28", "user:anna", &subject].map(str::to_owned));
        let row = table.lines().pop().unwrap();
        assert!(row.ends_with("xx\u{2026}") && width(&row) < 350, "{} cells", width(&row));
        let marks = format!("x{}", "\u{301}".repeat(200_116));
        table.waiting.push(["00000002", "16:05:28", "user:anna", &marks].map(str::to_owned));
        assert!(table.lines().pop().unwrap().len() < 4_000);
    }

    #[test]
    fn what_is_most_important_fits_any_terminal() {
        for (terminal, shown, widest) in [
            (99, "ID TIME ACCOUNT SUBJECT", 58),
            (50, "ID TIME ACCOUNT SUBJECT", 49), // half of a wide character is not shown
            (38, "ID TIME ACCOUNT SUBJECT", 37),
            (37, "ID ACCOUNT SUBJECT", 37),
            (28, "ID TIME ACCOUNT", 28),
            (18, "ID ACCOUNT", 18),
            (17, "ID TIME", 17),
            (15, "ID", 8),
            // Narrower than an id, which is never cut, since it is there to be copied.
            (3, "ID", 8),
        ] {
            let lines = table(Some(terminal)).lines();
            assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>().join(" "), shown);
            assert!(lines[2].starts_with("00000002"));
            assert_eq!(lines.iter().map(|line| width(line)).max(), Some(widest), "{terminal}: {lines:#?}");
        }
    }

    #[test]
    fn later_rows_keep_to_the_columns() {
        let mut table = table(Some(60));
        let before = table.lines();
        table.waiting.push(["00000003", "16:05:30", "user:anna", "x".repeat(99).as_str()].map(str::to_owned));
        let after = table.lines();
        assert_eq!((before.len(), after.len()), (3, 1));
        assert!(width(&after[0]) <= 60 && after[0].ends_with('\u{2026}'), "{after:?}");
        assert_eq!(before[1].find("user:"), after[0].find("user:"));
    }
}
