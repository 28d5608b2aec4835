//! Tables of figures, kept as CSV so that each part can be measured again by itself.

use std::fmt::Write;
use std::path::Path;

use crate::Outcome;
use crate::child::Found;

pub struct Row {
    pub keys: Vec<String>,
    pub found: Found,
}

impl Row {
    pub fn new(keys: &[&str], found: Found) -> Self {
        Self { keys: keys.iter().map(|key| (*key).to_owned()).collect(), found }
    }

    pub fn get(&self, figure: &str) -> Option<f64> {
        self.found.get(figure).copied()
    }
}

pub struct Table {
    name: String,
    keys: Vec<String>,
    pub rows: Vec<Row>,
}

impl Table {
    pub fn new(name: &str, keys: &[&str]) -> Self {
        Self { name: name.to_owned(), keys: keys.iter().map(|key| (*key).to_owned()).collect(), rows: Vec::new() }
    }

    pub fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// The figure of the row with these keys.
    pub fn get(&self, keys: &[&str], figure: &str) -> Option<f64> {
        self.rows.iter().find(|row| row.keys == keys)?.get(figure)
    }

    pub fn save(&self, directory: &Path) -> Outcome<()> {
        let mut figures: Vec<&String> = self.rows.iter().flat_map(|row| row.found.keys()).collect();
        figures.sort();
        figures.dedup();
        let head: Vec<&str> = self.keys.iter().chain(figures.iter().copied()).map(String::as_str).collect();
        let mut text = head.join(",");
        for row in &self.rows {
            text += "\n";
            text += &row.keys.join(",");
            for figure in &figures {
                text += ",";
                if let Some(value) = row.found.get(*figure) {
                    write!(text, "{}", rounded(*value))?;
                }
            }
        }
        Ok(std::fs::write(directory.join(format!("{}.csv", self.name)), text + "\n")?)
    }

    /// What was measured last; `None` when nothing was.
    pub fn load(directory: &Path, name: &str, keys: usize) -> Outcome<Option<Self>> {
        let Ok(text) = std::fs::read_to_string(directory.join(format!("{name}.csv"))) else { return Ok(None) };
        let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
        let head = lines.next().unwrap_or_default();
        let (keys, figures) = head.split_at_checked(keys).ok_or("a table of figures is cut short")?;
        let mut table = Self { name: name.to_owned(), keys: keys.to_vec(), rows: Vec::new() };
        for mut line in lines.filter(|line| line.len() == head.len()) {
            let values = line.split_off(keys.len());
            let values =
                figures.iter().cloned().zip(values).filter_map(|(name, value)| Some((name, value.parse().ok()?)));
            table.rows.push(Row { keys: line, found: values.collect() });
        }
        Ok(Some(table))
    }
}

/// With four digits that count.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let digits = 10f64.powi(3 - value.abs().log10().floor() as i32);
    (value * digits).round() / digits
}
