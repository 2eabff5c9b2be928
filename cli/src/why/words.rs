//! What to do about a reason: the table of docs/cluster.md, which people read there and get here.

/// The page, as it was when this was built.
const PAGE: &str = include_str!("../../../docs/cluster.md");

/// A row of the table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// The conditions that may have it.
    pub(super) conditions: &'static str,
    /// The reasons, separated by commas.
    pub(super) reasons: &'static str,
    /// What to do.
    pub(super) advice: &'static str,
}

impl Row {
    fn has(&self, reason: &str) -> bool {
        self.reasons.split(", ").any(|one| one == reason)
    }
}

/// All rows. A row without conditions has those of the row above.
pub(super) fn rows() -> Vec<Row> {
    let mut conditions = "";
    let mut rows = Vec::new();
    let lines = PAGE
        .lines()
        .skip_while(|line| !line.starts_with("| condition | reason |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    for line in lines {
        let mut cells = line.trim_matches('|').splitn(3, '|').map(str::trim);
        let (Some(first), Some(reasons), Some(advice)) = (cells.next(), cells.next(), cells.next())
        else {
            continue;
        };
        if !first.is_empty() {
            conditions = first;
        }
        rows.push(Row {
            conditions,
            reasons,
            advice,
        });
    }
    rows
}

/// What to do about `reason` of the condition `kind`, if the page knows.
pub(super) fn advice(kind: &str, reason: &str) -> Option<String> {
    let rows = rows();
    let matching = || rows.iter().filter(|row| row.has(reason));
    let row = matching()
        .find(|row| row.conditions == kind)
        .or_else(|| matching().find(|row| row.conditions.split(", ").any(|one| one == kind)))
        .or_else(|| matching().next())?;
    Some(row.advice.replace('`', ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_page_is_found_by_each_of_its_reasons() {
        let rows = rows();
        assert!(rows.len() > 25, "{}", rows.len());
        for row in &rows {
            let kind = row.conditions.split(", ").next().unwrap();
            for reason in row.reasons.split(", ") {
                let found = advice(kind, reason).unwrap();
                assert!(!found.is_empty() && !found.contains('|'), "{row:?}");
            }
        }
    }

    #[test]
    fn a_reason_that_two_conditions_have_is_told_apart() {
        let of_claim = advice("Bound", "ErrResourceExists").unwrap();
        let of_pod = advice("Running", "ErrResourceExists").unwrap();
        assert!(of_claim.contains("adoption"), "{of_claim}");
        assert!(of_pod.contains("pod"), "{of_pod}");
        assert_eq!(advice("Bound", "NoSuchReason"), None);
    }
}
