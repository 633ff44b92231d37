//! What the rounds say, as one Markdown table.

use crate::{Round, servers::Contender};
use std::fmt::{self, Display, Formatter};

const CONTENDERS: usize = Contender::ALL.len();

/// One figure of all servers.
pub struct Line {
    name: String,
    decimals: usize,
    /// Of each server, one a round.
    figures: Round<Vec<f64>>,
}

impl Line {
    pub fn new<T>(name: String, decimals: usize, rounds: &[Round<T>], figure: impl Fn(&T) -> f64) -> Self {
        let figures = std::array::from_fn(|n| rounds.iter().map(|round| figure(&round[n])).collect());
        Self { name, decimals, figures }
    }

    /// For a figure that is not taken in every round.
    pub fn replace(&mut self, contender: Contender, figure: f64) {
        self.figures[contender as usize] = vec![figure];
    }

    fn cells(&self) -> Vec<String> {
        let decimals = self.decimals;
        let medians = self.figures.iter().map(|figures| format!("{:.decimals$}", median(figures)));
        // Of one round after the other: a ratio of medians would compare what was not taken together.
        let ratios = self.figures[1..].iter().map(|others| {
            if others.len() < self.figures[0].len() {
                return format!("{:.2}", median(&self.figures[0]) / median(others)); // not taken by turns
            }
            let mut ratios: Vec<_> = self.figures[0].iter().zip(others).map(|(ours, other)| ours / other).collect();
            ratios.sort_by(f64::total_cmp);
            format!("{:.2} ({:.2}–{:.2})", median(&ratios), ratios[0], ratios[ratios.len() - 1])
        });
        [self.name.clone()].into_iter().chain(medians).chain(ratios).collect()
    }
}

pub fn median(figures: &[f64]) -> f64 {
    let mut figures = figures.to_vec();
    figures.sort_by(f64::total_cmp);
    let (low, high) = (figures[(figures.len() - 1) / 2], figures[figures.len() / 2]);
    (low + high) / 2.0
}

#[derive(Default)]
pub struct Table(Vec<Line>);

impl Extend<Line> for Table {
    /// Without those that were not measured: filtered out, or only tried once by `cargo test`.
    fn extend<L: IntoIterator<Item = Line>>(&mut self, lines: L) {
        self.0.extend(lines.into_iter().filter(|line| line.figures[0].len() > 1));
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        let names = Contender::ALL.map(|contender| contender.name().to_owned());
        let over = names[1..].iter().map(|other| format!("ratio to {other}"));
        let head = [String::from("median")].into_iter().chain(names.clone()).chain(over).collect();
        let rows: Vec<Vec<String>> = [head].into_iter().chain(self.0.iter().map(Line::cells)).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<_> = (0..2 * CONTENDERS).map(width).collect();
        for (n, row) in rows.iter().enumerate() {
            for (cell, width) in row.iter().zip(&widths) {
                write!(f, "| {cell:width$} ")?;
            }
            writeln!(f, "|")?;
            if n == 0 {
                widths.iter().try_for_each(|width| write!(f, "|{:-<1$}", "", width + 2))?;
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}
