//! Median times as bars: plain SVG, readable on light and dark pages.

use super::case::Group;
use super::table::Table;

const WIDTH: f64 = 760.0;
/// Where bars begin, and the longest bar.
const LEFT: f64 = 250.0;
const LONGEST: f64 = 400.0;
const BAR: f64 = 18.0;
const TITLE: f64 = 26.0;
const OUR_COLOUR: &str = "#0b7a75";
const THEIR_COLOUR: &str = "#a9b4c2";
const BOUND_COLOUR: &str = "#e3d9b8";

/// How a text stands at its point.
const HEADING: &str = "text-anchor=\"start\" font-weight=\"bold\"";
const BEFORE: &str = "text-anchor=\"end\"";
const BEHIND: &str = "text-anchor=\"start\"";

/// What a group's chart is called.
pub(super) fn name(group: Group) -> String {
    format!("chart-{}.svg", group.name())
}

/// A chart for each group that has been measured, with its file's name.
pub(super) fn all(tables: &[Table]) -> Vec<(String, String)> {
    let chart = |group: Group| {
        let cases: Vec<&Table> = tables
            .iter()
            .filter(|table| table.group == group && !table.rows.is_empty())
            .collect();
        (!cases.is_empty()).then(|| (name(group), render(&cases)))
    };
    Group::ALL.into_iter().filter_map(chart).collect()
}

/// One group of bars for each case, each with a scale of its own.
fn render(tables: &[&Table]) -> String {
    let mut body = String::new();
    let mut y = 12.0;
    for table in tables {
        text(&mut body, 12.0, y + 16.0, HEADING, &table.case);
        y += TITLE;
        let slowest = table.rows.iter().map(|row| row.wall).fold(0.0, f64::max);
        for row in &table.rows {
            let ours = row.is_ours();
            let colour = match (ours, row.is_peer()) {
                (true, _) => OUR_COLOUR,
                (false, true) => THEIR_COLOUR,
                (false, false) => BOUND_COLOUR,
            };
            let width = (row.wall / slowest * LONGEST).max(1.0);
            text(&mut body, LEFT - 8.0, y + 13.0, BEFORE, &row.contender);
            let value = if ours {
                format!("{:.2} s", row.wall)
            } else {
                format!("{:.2} s ({:.1}x)", row.wall, row.speed.value)
            };
            let height = BAR - 4.0;
            body.extend([format!(
                "<rect x=\"{LEFT}\" y=\"{y:.0}\" width=\"{width:.1}\" height=\"{height:.0}\" \
                 fill=\"{colour}\"/>\n"
            )]);
            text(&mut body, LEFT + width + 6.0, y + 12.0, BEHIND, &value);
            y += BAR;
        }
        y += 8.0;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {WIDTH} {height:.0}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>Median time of a conversion to raw; shorter is better</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{body}</svg>\n",
        height = y + 4.0
    )
}

fn text(body: &mut String, x: f64, y: f64, style: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    body.extend([format!(
        "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"#1b1f24\" {style}>{text}</text>\n"
    )]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::versus::contender::OURS;
    use crate::versus::record::Record;

    #[test]
    fn the_slowest_bar_is_the_longest_and_ours_stands_out() {
        let record = |contender: &str, wall| Record {
            case: "raw@disk".into(),
            round: 1,
            contender: contender.into(),
            wall,
            user: 1.0,
            ..Record::default()
        };
        let records = [record(OURS, 1.0), record("a<b", 4.0)];
        let (name, svg) = all(&Table::all(&records)).remove(0);
        assert_eq!(name, "chart-files.svg");
        assert!(svg.contains("width=\"400.0\""), "{svg}");
        assert!(
            svg.contains("width=\"100.0\" height=\"14\" fill=\"#0b7a75\""),
            "{svg}"
        );
        assert!(
            svg.contains("a&lt;b") && svg.contains("4.00 s (4.0x)"),
            "{svg}"
        );
    }
}
