//! What is measured, printed as it comes, and kept for the table and the chart.

use crate::figure::{Figure, Goal};
use crate::spread::Spread;

/// All of one run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) groups: Vec<Group>,
    pub(crate) figures: Vec<Figure>,
    /// Ratios of a thing to itself, which should be 1: how much the others are worth.
    pub(crate) checks: Vec<(String, f64)>,
}

/// Rows that were measured in turns with each other.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) rows: Vec<Row>,
}

/// The blocks of one client.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) spread: Spread,
}

impl Report {
    /// Prints and keeps a group. Its first row is what the others are shown in terms of.
    pub(crate) fn group(&mut self, title: &'static str, unit: &'static str, rows: Vec<Row>) {
        println!(
            "\n{:44} {:>10} {:>10} {:>10}   p50/first  blocks",
            format!("{title}, {unit}"),
            "p10",
            "p50",
            "p90"
        );
        for Row { name, spread: Spread { p10, p50, p90, count } } in &rows {
            let ratio = p50 / rows[0].spread.p50;
            println!("{name:44} {p10:>10.1} {p50:>10.1} {p90:>10.1}   {ratio:>9.3}  {count:>6}");
        }
        println!();
        self.groups.push(Group { title, unit, rows });
    }

    /// Prints and keeps a figure.
    pub(crate) fn figure(
        &mut self,
        name: &'static str,
        value: f64,
        unit: &'static str,
        goal: (Goal, f64),
        what: &'static str,
    ) {
        let figure = Figure { name, value, unit, goal, what };
        println!("{figure}");
        self.figures.push(figure);
    }

    /// Prints and keeps what should be 1.
    pub(crate) fn check(&mut self, name: String, value: f64) {
        println!("check {name} {value:.3} should be about 1");
        self.checks.push((name, value));
    }
}

impl Group {
    /// The medians of a group by name; several names are ways to do the same, and the best counts.
    pub(crate) fn medians<'a>(&'a self, part: &'a str) -> impl Iterator<Item = f64> + 'a {
        let rows = self.rows.iter().filter(move |row| row.name.starts_with(part));
        rows.map(|row| row.spread.p50)
    }

    /// The least median of the rows whose names begin so.
    pub(crate) fn least(&self, part: &str) -> f64 {
        self.medians(part).reduce(f64::min).expect("there is such a row")
    }

    /// The greatest one.
    pub(crate) fn most(&self, part: &str) -> f64 {
        self.medians(part).reduce(f64::max).expect("there is such a row")
    }
}
