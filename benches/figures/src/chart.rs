//! The chart: a bar for each row, as SVG by hand. The bar is the median; the line through its end
//! is from the 10th to the 90th percentile.

use std::fmt::Write as _;

use crate::figure::number;
use crate::report::{Group, Report, Row};

/// What is shown of a group: how its title goes on, and which rows, by how their names begin.
struct Panel {
    group: &'static str,
    title: &'static str,
    rows: &'static [&'static str],
}

const PANELS: [Panel; 2] = [
    Panel {
        group: "one cycle on one thread",
        title: "lock and release, one thread: microseconds, less is better",
        rows: &["distlock", "raw", "tokio-postgres", "sqlx", "distributed-lock"],
    },
    Panel {
        group: "many at once on one connection",
        title: "lock and release on one connection: pairs a second, more is better",
        rows: &["distlock", "tokio-postgres", "pgbench"],
    },
];

const WIDTH: f64 = 860.0;
/// Where the bars begin and how long the longest is; its value stands behind it.
const LEFT: f64 = 300.0;
const LENGTH: f64 = 470.0;
const LINE: f64 = 22.0;
const BAR: f64 = 14.0;
const HEAD: f64 = 34.0;

/// Colours that can be read on white and on black.
const STYLE: &str = "text{font:12px sans-serif;fill:#57606a}.t{font-weight:bold}\
    .v{font-size:11px}.o{fill:#0969da}.p{fill:#8c959f}\
    .w{stroke:#57606a;stroke-width:1.5}\
    @media(prefers-color-scheme:dark){text{fill:#b1bac4}.w{stroke:#e6edf3}.o{fill:#4493f8}}";

/// All panels that the run has rows for.
pub(crate) fn draw(report: &Report) -> String {
    let mut body = String::new();
    let mut y = 0.0;
    for panel in &PANELS {
        let Some(group) = report.groups.iter().find(|group| group.title == panel.group) else {
            continue;
        };
        y = draw_panel(&mut body, panel, group, y);
    }
    let height = y + LINE / 2.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\">\n<style>{STYLE}</style>\n{body}</svg>\n"
    )
}

/// Draws one panel from `y` on, and returns where it ends.
fn draw_panel(body: &mut String, panel: &Panel, group: &Group, y: f64) -> f64 {
    let shown = |row: &&Row| panel.rows.iter().any(|name| row.name.starts_with(name));
    let rows: Vec<&Row> = group.rows.iter().filter(shown).collect();
    let longest = rows.iter().map(|row| row.spread.p90).fold(0.0, f64::max);
    let x = |value: f64| LEFT + value / longest * LENGTH;
    let _ = writeln!(body, "<text class=\"t\" x=\"8\" y=\"{}\">{}</text>", y + 22.0, panel.title);
    for (n, row) in rows.iter().enumerate() {
        let top = y + HEAD + n as f64 * LINE;
        let (middle, text) = (top + BAR / 2.0, top + BAR - 3.0);
        let class = if row.name.starts_with("distlock") { "o" } else { "p" };
        let spread = &row.spread;
        let [low, median, high] = [spread.p10, spread.p50, spread.p90].map(x);
        let (name, value) = (escaped(&row.name), number(spread.p50));
        let (left, width, end) = (LEFT - 8.0, median - LEFT, high.max(median) + 6.0);
        let _ = writeln!(
            body,
            "<text x=\"{left:.1}\" y=\"{text:.1}\" text-anchor=\"end\">{name}</text>\n\
             <rect class=\"{class}\" x=\"{LEFT}\" y=\"{top:.1}\" width=\"{width:.1}\" \
             height=\"{BAR}\"/>\n\
             <line class=\"w\" x1=\"{low:.1}\" x2=\"{high:.1}\" y1=\"{middle:.1}\" \
             y2=\"{middle:.1}\"/>\n\
             <text class=\"v\" x=\"{end:.1}\" y=\"{text:.1}\">{value}</text>",
        );
    }
    y + HEAD + rows.len() as f64 * LINE
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spread::Spread;

    #[test]
    fn each_row_of_a_panel_has_a_bar_of_its_median_and_others_have_none() {
        let row = |name: &str, value| Row { name: name.into(), spread: Spread::of(&[value]) };
        let rows =
            vec![row("raw tcp", 100.0), row("distlock <tcp>", 50.0), row("(again) raw", 1.0)];
        let mut report = Report::default();
        report.groups.push(Group { title: PANELS[0].group, unit: "us", rows });
        let svg = draw(&report);
        assert_eq!(svg.matches("<rect").count(), 2, "{svg}");
        assert!(svg.contains("class=\"p\" x=\"300\" y=\"34.0\" width=\"470.0\""), "{svg}");
        assert!(svg.contains("class=\"o\" x=\"300\" y=\"56.0\" width=\"235.0\""), "{svg}");
        assert!(svg.contains("distlock &lt;tcp&gt;"), "{svg}");
    }
}
