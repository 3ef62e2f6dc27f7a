//! A figure: one number, and the goal that it is held against.

use std::fmt;

/// Which side of the goal is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    AtMost,
    AtLeast,
}

/// One number.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) goal: (Goal, f64),
    /// What it is, for the table.
    pub(crate) what: &'static str,
}

impl Figure {
    pub(crate) fn is_met(&self) -> bool {
        match self.goal {
            (Goal::AtMost, limit) => self.value <= limit,
            (Goal::AtLeast, limit) => self.value >= limit,
        }
    }

    pub(crate) fn verdict(&self) -> &'static str {
        if self.is_met() { "ok" } else { "short" }
    }

    /// As in `<= 0.60`.
    pub(crate) fn goal(&self) -> String {
        let (goal, limit) = self.goal;
        let sign = if goal == Goal::AtMost { "<=" } else { ">=" };
        format!("{sign} {}", number(limit))
    }
}

/// The line that the tools of others may look for.
impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value, unit, .. } = self;
        let (goal, verdict) = (self.goal(), self.verdict());
        write!(f, "figure {name} {} {unit} goal {goal} {verdict}", number(*value))
    }
}

/// Two decimals where they say something. A value is never rounded over its goal: what is printed
/// for 0.6004 is 0.6004.
pub(crate) fn number(value: f64) -> String {
    let text = match value.abs() {
        0.0 => return "0".to_owned(),
        ..10.0 => format!("{value:.4}"),
        ..1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    };
    if !text.contains('.') {
        return text;
    }
    let trimmed = text.trim_end_matches('0').trim_end_matches('.');
    trimmed.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(value: f64, goal: (Goal, f64)) -> Figure {
        Figure { name: "a", value, unit: "ratio", goal, what: "" }
    }

    #[test]
    fn a_figure_says_whether_it_is_on_the_good_side_of_its_goal() {
        let text = |value, goal| figure(value, goal).to_string();
        let (most, least) = ((Goal::AtMost, 0.6), (Goal::AtLeast, 4.0));
        assert_eq!(text(0.6, most), "figure a 0.6 ratio goal <= 0.6 ok");
        assert_eq!(text(0.6004, most), "figure a 0.6004 ratio goal <= 0.6 short");
        assert_eq!(text(4.0, least), "figure a 4 ratio goal >= 4 ok");
        assert_eq!(text(3.9, least), "figure a 3.9 ratio goal >= 4 short");
    }

    #[test]
    fn numbers_are_as_long_as_they_say_something() {
        let text = [0.0, 0.5, 12.34, 123_456.7, 6000.0, 0.25].map(number);
        assert_eq!(text, ["0", "0.5", "12.3", "123457", "6000", "0.25"]);
    }
}
