//! A table that is drawn over itself, no higher and no wider than the terminal.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use super::rows::{Row, Table, sum};
use crate::failure::Failure;

/// Where a terminal does not tell.
const USUAL: (usize, usize) = (80, 24);

/// What was drawn last.
#[derive(Debug, Default)]
pub(super) struct Screen {
    drawn: usize,
}

impl Screen {
    /// Draws `rows` in the place of those before.
    pub(super) fn draw(&mut self, rows: Vec<Row>, everywhere: bool) -> Result<(), Failure> {
        let (width, height) = size();
        let lines = frame(rows, everywhere, width, height);
        let mut text = String::new();
        if self.drawn > 0 {
            // Up to where the last one began, and all from there on away.
            let _ = write!(text, "\x1b[{}A\x1b[J", self.drawn);
        }
        for line in &lines {
            text += line;
            text += "\n";
        }
        self.drawn = lines.len();
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(|source| Failure::Output { source })
    }
}

/// What fits: those under way first, since those are what one looks for.
fn frame(mut rows: Vec<Row>, everywhere: bool, width: usize, height: usize) -> Vec<String> {
    let last = sum(&rows);
    // The head, the sum, and the line where the cursor is.
    let room = height.saturating_sub(4).max(1);
    let hidden = rows.len().saturating_sub(room);
    if hidden > 0 {
        rows.sort_by_key(|row| {
            let rank = match (&row.transfer, row.phase.as_str()) {
                (Some(_), _) => 0,
                (None, "Succeeded") => 2,
                (None, _) => 1,
            };
            (rank, row.namespace.clone(), row.name.clone())
        });
        rows.truncate(room);
    }
    let mut lines = Table::new(rows, everywhere).lines();
    if hidden > 0 {
        lines.push(format!("... and {hidden} more"));
    }
    lines.push(last);
    for line in &mut lines {
        if let Some((end, _)) = line.char_indices().nth(width) {
            line.truncate(end);
        }
    }
    lines
}

/// Columns and rows.
fn size() -> (usize, usize) {
    let Ok(size) = rustix::termios::tcgetwinsize(io::stdout()) else {
        return USUAL;
    };
    match (usize::from(size.ws_col), usize::from(size.ws_row)) {
        (0, _) | (_, 0) => USUAL,
        size => size,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, phase: &str) -> Row {
        Row {
            namespace: "ns".to_owned(),
            name: name.to_owned(),
            phase: phase.to_owned(),
            progress: "N/A".to_owned(),
            transfer: None,
            restarts: 0,
            reason: String::new(),
            message: String::new(),
            created: None,
        }
    }

    #[test]
    fn what_does_not_fit_is_counted_and_what_is_done_gives_way_first() {
        let rows = vec![
            row("a", "Succeeded"),
            row("b", "Pending"),
            row("c", "Succeeded"),
        ];
        let lines = frame(rows.clone(), false, 10, 5);
        assert_eq!(lines.len(), 4);
        assert!(lines[1].starts_with('b'), "{lines:?}");
        assert_eq!(lines[2], "... and 2 ");
        assert!(lines.iter().all(|line| line.chars().count() <= 10));
        assert_eq!(frame(rows, false, 80, 24).len(), 5);
    }
}
