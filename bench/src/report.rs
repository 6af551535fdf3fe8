//! Medians and the Markdown table.

use std::borrow::Cow;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::program;

/// Values of one measurement, one a run.
#[derive(Debug, Default, Clone)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds a run's value.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_by(f64::total_cmp);
    }

    /// The value that the share `q` (0 to 1) of all values do not exceed, by nearest rank; 0 of none.
    pub fn quantile(&self, q: f64) -> f64 {
        let rank = (q * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.max(1) - 1).or(self.0.last()).copied().unwrap_or_default()
    }

    /// The middle value, or the mean of the two in the middle.
    pub fn median(&self) -> f64 {
        let n = self.0.len();
        match (self.0.get(n.saturating_sub(1) / 2), self.0.get(n / 2)) {
            (Some(low), Some(high)) => f64::midpoint(*low, *high),
            _ => 0.0,
        }
    }

    /// The median with its unit, then the least and the greatest.
    pub fn show(&self, unit: &str) -> String {
        let median = number(self.median());
        match (self.0.first(), self.0.last()) {
            (Some(least), Some(most)) if self.0.len() > 1 => {
                format!("{median} {unit} ({} to {}, {} runs)", number(*least), number(*most), self.0.len())
            }
            (Some(_), _) => format!("{median} {unit}"),
            _ => "-".into(),
        }
    }
}

impl From<Vec<f64>> for Samples {
    fn from(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self(values)
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        values.into_iter().collect::<Vec<_>>().into()
    }
}

/// A table in Markdown.
pub fn table(columns: &[&str], rows: &[Vec<String>]) -> String {
    let cell = |c: &str| c.replace('|', "\\|").split_whitespace().collect::<Vec<_>>().join(" ");
    let mut text = format!("| {} |\n|{}\n", columns.join(" | "), "---|".repeat(columns.len()));
    for row in rows {
        let cells: Vec<String> = row.iter().map(|c| cell(c)).collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}

/// The line above a table: what was measured, where. `peers` are the other programs, with their versions.
///
/// # Errors
/// The binary does not say its version.
pub fn about(name: &str, copepod: &Path, peers: &str) -> Result<String> {
    let version = program::output(Command::new(copepod).arg("version"))?;
    Ok(format!("`cargo xtask bench {name}`: {}, {peers}, {} before.", version.trim(), machine()))
}

/// Cores and load of this machine.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!("{cores} cores, load average {}", load.split(' ').next().unwrap_or("?"))
}

/// About three digits, no more than matter.
pub fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// One line of the table.
#[derive(Debug, Default)]
pub struct Row {
    /// What is measured.
    pub what: Cow<'static, str>,
    /// Copepod's value.
    pub ours: String,
    /// The peer's, if there is one.
    pub peer: Option<String>,
    /// Copepod's value by the peer's.
    pub ratio: Option<f64>,
    /// How to see it by hand.
    pub command: &'static str,
}

/// The table in the making; a part that failed is a line of its own.
#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
    failed: Vec<&'static str>,
}

impl Report {
    /// Adds a part's rows, or says why there are none.
    pub fn add(&mut self, part: &'static str, outcome: Result<Vec<Row>>) {
        match outcome {
            Ok(rows) => self.rows.extend(rows),
            Err(error) => {
                eprintln!("    {part} failed: {error:#}");
                self.failed.push(part);
                self.rows.push(Row { what: part.into(), ours: format!("failed: {error:#}"), ..Row::default() });
            }
        }
    }

    /// The table in Markdown; it has a column for commands if a row has one.
    pub fn markdown(&self) -> String {
        let columns = match self.rows.iter().any(|row| !row.command.is_empty()) {
            true => ["What", "Copepod", "Peer", "Ratio", "Command"].as_slice(),
            false => &["What", "Copepod", "Peer", "Ratio"],
        };
        let cells = |row: &Row| {
            let ratio = row.ratio.map_or_else(|| "-".into(), |r| format!("{r:.2}x"));
            let command = if row.command.is_empty() { "-".into() } else { format!("`{}`", row.command) };
            let peer = row.peer.clone().unwrap_or_else(|| "-".into());
            let mut cells = vec![row.what.to_string(), row.ours.clone(), peer, ratio, command];
            cells.truncate(columns.len());
            cells
        };
        let rows: Vec<_> = self.rows.iter().map(cells).collect();
        table(columns, &rows)
    }

    /// An error if a part failed.
    ///
    /// # Errors
    /// Names the parts.
    pub fn outcome(&self) -> Result<()> {
        if !self.failed.is_empty() {
            bail!("failed: {}", self.failed.join(", "));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_quantiles() {
        for (values, median, p99) in [
            (vec![], 0.0, 0.0),
            (vec![3.0], 3.0, 3.0),
            (vec![9.0, 1.0, 2.0], 2.0, 9.0),
            (vec![4.0, 1.0, 2.0, 3.0], 2.5, 4.0),
            ((1..=200).map(f64::from).collect(), 100.5, 198.0),
        ] {
            let samples: Samples = values.into_iter().collect();
            assert_eq!((samples.median(), samples.quantile(0.99)), (median, p99), "{samples:?}");
        }
    }

    #[test]
    fn values_show_the_digits_that_matter() {
        let samples: Samples = [1234.5, 12.345, 0.1234].into_iter().collect();
        assert_eq!(samples.show("ms"), "12.3 ms (0.12 to 1234, 3 runs)");
        assert_eq!(Samples::default().show("ms"), "-");
    }

    #[test]
    fn a_failed_part_stays_in_the_table_and_fails_the_run() {
        let mut report = Report::default();
        let row = Row {
            what: "rate".into(),
            ours: "2 /s".into(),
            peer: Some("1 /s".into()),
            ratio: Some(2.0),
            command: "a | b",
        };
        report.add("good", Ok(vec![row]));
        assert!(report.outcome().is_ok());
        report.add("bad", Err(anyhow::anyhow!("two\nlines")));
        let table = report.markdown();
        assert!(
            table.contains("| rate | 2 /s | 1 /s | 2.00x | `a \\| b` |\n| bad | failed: two lines | - | - | - |\n"),
            "{table}"
        );
        assert_eq!(report.outcome().unwrap_err().to_string(), "failed: bad");
    }
}
