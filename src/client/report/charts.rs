//! The pictures of a report: how its numbers become lines, bars, bands and cells.
//!
//! Relies on `picture` for the drawing. Each takes the report and is a whole `<svg>`.

use super::{
    document::ClientReport,
    parts::{Row, Step},
    picture::{Picture, Scale, escaped},
    times::Hdr,
};
use std::collections::BTreeMap;

/// A tick of time, given in microseconds: 10 µs, 1 ms, 100 s.
fn time(micros: f64) -> String {
    match micros {
        ..1e3 => format!("{micros:.0} µs"),
        ..1e6 => format!("{:.0} ms", micros / 1e3),
        _ => format!("{:.0} s", micros / 1e6),
    }
}

fn seconds(at: f64) -> String {
    format!("{at} s")
}

impl ClientReport {
    /// When the last row of the timeline ends.
    fn end_s(&self) -> f64 {
        self.timeline.rows.last().map_or(1, |row| row.at_s + self.timeline.interval_s.max(1)) as f64
    }

    /// An empty picture over the time of the run, with a band for each outage.
    fn over_time(&self, label: &str, y: Scale, shown: impl Fn(f64) -> String) -> Picture {
        let x = Scale::between(0.0, self.end_s());
        let windows = self.outages.windows.iter();
        let empty = windows.fold(Picture::new(label, x, y), |picture, window| {
            // The reasons are words of this program, though a report may be read from a file.
            let title = escaped(&window.why);
            picture.band(
                window.from_s,
                window.to_s,
                &format!("{:.2} s to {:.2} s: {title}{}", window.from_s, window.to_s, window.still_out()),
            )
        });
        empty.across(shown).below(&x.ticks(), seconds)
    }

    fn middle(&self, row: &Row) -> f64 {
        row.at_s as f64 + self.timeline.interval_s as f64 / 2.0
    }
}

/// How long echoes took by their share, on an axis on which each nine takes as much place: 90 %, 99 %, 99.9 %.
pub(super) fn percentiles(report: &ClientReport) -> String {
    let hdrs = [("a", &report.hdr.response), ("b", &report.hdr.round_trip)];
    let hdrs = hdrs.into_iter().filter(|(_, hdr)| hdr.count() > 0);
    // A share beyond which there is less than one echo says nothing.
    let count = hdrs.clone().map(|(_, hdr)| hdr.count()).max().unwrap_or(1);
    let nines = (count as f64).log10().clamp(1.0, 5.0);
    let places = (0..=100).map(|n| nines * f64::from(n) / 100.0);
    let at = |hdr: &Hdr, place: f64| hdr.at(1.0 - 10_f64.powf(-place)) as f64 / 1e3;
    let values = hdrs.clone().flat_map(|(_, hdr)| [at(hdr, 0.0), at(hdr, nines)]);
    let ticks: Vec<f64> = (0..=nines as i32).map(f64::from).collect();
    let frame =
        Picture::new("response and round trip by percentile", Scale::between(0.0, nines), Scale::powers(values))
            .across(time)
            .below(&ticks, |place| {
                if place == 0.0 { "0 %".into() } else { format!("{} %", 100.0 - 100.0 / 10_f64.powf(place)) }
            });
    hdrs.fold(frame, |picture, (class, hdr)| {
        picture.line(class, places.clone().map(|place| (place, Some(at(hdr, place)))))
    })
    .finish()
}

/// One time of an interval, in microseconds.
type Figure = fn(&Row) -> Option<u64>;

/// p50, p99 and the longest of each interval.
pub(super) fn times(report: &ClientReport) -> String {
    let rows = &report.timeline.rows;
    let figures: [(&str, Figure); 3] = [("a", |row| row.p50_us), ("b", |row| row.p99_us), ("c", |row| row.max_us)];
    let values = rows.iter().flat_map(|row| [row.p50_us, row.max_us]).flatten().map(|micros| micros as f64);
    let frame = report.over_time("times of each interval", Scale::powers(values), time);
    let line = |picture: Picture, (class, figure): (&str, Figure)| {
        picture.line(class, rows.iter().map(|row| (report.middle(row), figure(row).map(|micros| micros as f64))))
    };
    figures.into_iter().fold(frame, line).finish()
}

/// Echoes verified a second as bars, and what was due as a line.
pub(super) fn echoes(report: &ClientReport) -> String {
    let interval = report.timeline.interval_s.max(1) as f64;
    let rows = &report.timeline.rows;
    let most = rows.iter().map(|row| row.due as f64 / interval).fold(0.0, f64::max);
    let frame = report.over_time("echoes a second", Scale::linear(most), |rate| rate.to_string());
    let bars = rows.iter().fold(frame, |picture, row| {
        let from = row.at_s as f64;
        picture.cell((from, from + interval), (0.0, row.verified as f64 / interval), 1.0)
    });
    bars.line("due", rows.iter().map(|row| (report.middle(row), Some(row.due as f64 / interval)))).finish()
}

/// How many echoes took how long in each interval: the more, the darker.
pub(super) fn heat(report: &ClientReport) -> String {
    let interval = report.timeline.interval_s.max(1) as f64;
    // Four cells each time that the time doubles.
    let cell = |nanos: u64| (nanos.max(1_000) as f64 / 1e3).log2().mul_add(4.0, 0.0).floor() as i32;
    let edge = |cell: i32| 2_f64.powf(f64::from(cell) / 4.0);
    let mut cells = BTreeMap::<(u64, i32), u64>::new();
    for row in &report.timeline.rows {
        row.buckets_ns.iter().for_each(|&(nanos, n)| *cells.entry((row.at_s, cell(nanos))).or_default() += n);
    }
    let most = cells.values().max().copied().unwrap_or(1) as f64;
    let values = cells.keys().flat_map(|&(_, cell)| [edge(cell), edge(cell + 1)]);
    let frame = report.over_time("how many echoes took how long", Scale::powers(values), time);
    cells
        .iter()
        .fold(frame, |picture, (&(at, cell), &n)| {
            let share = (n as f64 / most).sqrt().max(0.05);
            picture.cell((at as f64, at as f64 + interval), (edge(cell), edge(cell + 1)), share)
        })
        .finish()
}

/// p50 and p99 of the response at each rate.
pub(super) fn steps(report: &ClientReport) -> String {
    let figures = |step: &Step| [("a", step.response.p50_us), ("b", step.response.p99_us)];
    let values = report.steps.iter().flat_map(figures).filter_map(|(_, micros)| micros).map(|micros| micros as f64);
    let x = Scale::linear(report.steps.iter().map(|step| step.rate).fold(0.0, f64::max));
    let frame = Picture::new("response by rate", x, Scale::powers(values))
        .across(time)
        .below(&x.ticks(), |rate| format!("{rate}/s"));
    let line = |picture: Picture, n: usize| {
        let points = report.steps.iter().map(|step| (step.rate, figures(step)[n].1.map(|micros| micros as f64)));
        picture.line(["a", "b"][n], points)
    };
    (0..2).fold(frame, line).finish()
}

#[cfg(test)]
mod tests {
    use super::super::{testing::sample, times::Times};
    use super::*;
    use std::{env, fs};

    /// Compares with the file beside this one. With the variable GOLDEN set it writes the file instead.
    fn golden(name: &str, svg: &str) {
        let path = format!("{}/src/client/report/golden/{name}.svg", env!("CARGO_MANIFEST_DIR"));
        if env::var_os("GOLDEN").is_some() {
            fs::write(&path, svg).unwrap();
        }
        assert_eq!(svg, fs::read_to_string(&path).unwrap(), "{path}");
    }

    #[test]
    fn the_pictures_are_those_that_were_looked_at() {
        let report = sample();
        golden("percentiles", &percentiles(&report));
        golden("times", &times(&report));
        golden("echoes", &echoes(&report));
        golden("heat", &heat(&report));
    }

    #[test]
    fn the_picture_of_steps_is_the_one_that_was_looked_at() {
        let step = |rate, p50, p99| {
            let response = Times { count: 1, p50_us: Some(p50), p99_us: Some(p99), ..Times::default() };
            Step { rate, due: 1, verified: 1, response, ..Step::default() }
        };
        let steps_of_rates = vec![step(500.0, 100, 400), step(1_000.0, 120, 900), step(2_000.0, 300, 80_000)];
        golden("steps", &steps(&ClientReport { steps: steps_of_rates, ..sample() }));
    }

    #[test]
    fn pictures_of_nothing_are_empty_frames() {
        let nothing = ClientReport::default();
        for picture in [percentiles, times, echoes, heat, steps] {
            let svg = picture(&nothing);
            assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn the_reason_of_an_outage_cannot_leave_its_text() {
        let mut report = sample();
        report.outages.windows[0].why = "</title><script>".into();
        assert!(times(&report).contains("5.12 s: &lt;/title&gt;&lt;script&gt;</title>"), "{}", times(&report));
    }
}
