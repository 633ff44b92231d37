//! The report as a page for a browser: one HTML file without a script, which loads nothing from anywhere.
//!
//! Relies on `charts` for the pictures. Every text that comes from a report is escaped, because it may come from a file.

use super::{
    charts,
    document::ClientReport,
    parts::{Compared, Part, ServerShare, Verdict},
    picture::escaped,
    table::readable,
    times::Times,
};
use std::fmt::Write as _;

const STYLE: &str = include_str!("page.css");

/// A number with a comma between thousands.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let comma = |n: usize| n > 0 && (digits.len() - n).is_multiple_of(3);
    digits.chars().enumerate().flat_map(|(n, digit)| comma(n).then_some(',').into_iter().chain([digit])).collect()
}

fn figure(micros: Option<u64>) -> String {
    micros.map_or_else(|| "-".into(), readable)
}

impl ClientReport {
    /// The report as one HTML page. The element with the attribute `data-verdict` says what followed.
    pub fn to_html(&self) -> String {
        let verdict = self.verdict.as_str();
        let mark = if self.verdict == Verdict::Passed { '✓' } else { '✗' };
        let (client, echoes) = (escaped(&self.client), thousands(self.verified));
        let mut page = format!(
            "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n<meta name=viewport content=\"width=device-width\">\n\
             <meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <title>echo-client: {verdict}</title>\n<style>\n{STYLE}</style>\n\
             <h1><span data-verdict={verdict}>{mark} {verdict}</span> · {client} · {echoes} echoes verified</h1>\n"
        );
        for sentence in self.sentences() {
            let _ = writeln!(page, "<p>{}</p>", escaped(&sentence));
        }
        for limit in &self.limits {
            let class = if limit.broken { "broken" } else { "kept" };
            let of = limit.client.as_ref().map(|client| format!(" ({client})")).unwrap_or_default();
            let text = escaped(&format!("{}{of}: {}, {class}", limit.limit, limit.value));
            let _ = writeln!(page, "<p class={class}>limit {text}</p>");
        }
        for (there, title, legend, svg) in self.pictures() {
            if there {
                let _ = writeln!(page, "<section>\n<h2>{title}</h2>\n<p>{legend}</p>\n{svg}</section>");
            }
        }
        page + &self.tables()
    }

    /// The pictures, and whether there is something to see in each.
    fn pictures(&self) -> [(bool, &'static str, &'static str, String); 5] {
        const SPANS: &str =
            "<b class=a>response</b> from when a message was due · <b class=b>round trip</b> from when it was sent";
        let over_time = !self.timeline.rows.is_empty();
        [
            (self.round_trip.count > 0, "Times by percentile", SPANS, charts::percentiles(self)),
            (
                over_time,
                "Times over time",
                "<b class=a>p50</b> · <b class=b>p99</b> · <b class=c>max</b>, by when a message was due; red: out",
                charts::times(self),
            ),
            (over_time, "Echoes a second", "verified, by when a message was due; dashed: due", charts::echoes(self)),
            (over_time, "How many took how long", "the more, the denser", charts::heat(self)),
            (self.steps.len() > 1, "Response by rate", "<b class=a>p50</b> · <b class=b>p99</b>", charts::steps(self)),
        ]
    }

    /// What happened, a sentence each.
    fn sentences(&self) -> Vec<String> {
        let mut said = Vec::new();
        let counts = [
            ("due", self.due),
            ("lost", self.lost),
            ("wrong", self.wrong),
            ("resent", self.resent),
            ("reports missing", self.missing),
        ];
        let counts = counts.into_iter().filter(|&(name, count)| count > 0 || name == "due");
        said.push(
            counts.map(|(name, count)| format!("{} {name}", thousands(count))).collect::<Vec<_>>().join(", ") + ".",
        );
        let rate = self.rate().map(|rate| format!(", {rate:.1} a second")).unwrap_or_default();
        said.push(format!("Server {}; started {}, {:.1} s{rate}.", self.server, self.started, self.elapsed_s));
        said.extend(self.told_connections().map(|told| format!("Connections: {told}.")));
        if self.outages.count > 0 {
            let (count, longest) = (self.outages.count, self.outages.longest_ms as f64 / 1e3);
            let longest_window =
                self.outages.windows.iter().max_by(|one, other| one.length_s().total_cmp(&other.length_s()));
            let why = longest_window.map_or("", |window| &window.why);
            let open = self.outages.windows.iter().any(|window| window.open);
            let still = if open { ", and still out at the end" } else { "" };
            said.push(format!("Outages: {count}; the longest {longest:.2} s ({why}){still}."));
            if self.clients.len() > 1 {
                said.push(format!("All clients out at once: {:.2} s.", self.outages.all_at_once_ms as f64 / 1e3));
            }
        }
        if self.late.count > 0 {
            said.push(format!("The client itself was late by {} (p99).", figure(self.late.p99_us)));
        }
        said.extend(self.told_books().into_iter().map(|told| format!("Books: {told}.")));
        said.extend(self.problem());
        said.extend(self.own.notes.iter().chain(&self.notes).cloned());
        said
    }

    fn tables(&self) -> String {
        let times = [
            ("response", &self.response),
            ("round trip", &self.round_trip),
            ("late", &self.late),
            ("connect", &self.connect),
        ];
        let rows = times.into_iter().filter(|(_, times)| times.count > 0).map(|(name, times)| {
            let Times { count, min_us, mean_us, p50_us, p90_us, p99_us, p99_9_us, p99_99_us, p99_999_us, max_us } =
                *times;
            let figures = [min_us, mean_us, p50_us, p90_us, p99_us, p99_9_us, p99_99_us, p99_999_us, max_us];
            [name.into(), thousands(count)].into_iter().chain(figures.map(figure)).collect()
        });
        let head = ["", "count", "min", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "p99.999", "max"];
        let mut tables = table("Times", &head, rows.collect());
        if self.servers.len() > 1 {
            let row = |(address, share): (&String, &ServerShare)| {
                vec![escaped(address), thousands(share.connections), thousands(share.verified)]
            };
            tables +=
                &table("Servers", &["address", "connections", "verified"], self.servers.iter().map(row).collect());
        }
        if !self.clients.is_empty() {
            let head = [
                "client", "verdict", "due", "verified", "lost", "wrong", "rate", "p50", "p99", "max", "late p99",
                "outages", "longest",
            ];
            tables += &table("Clients", &head, self.clients.iter().map(client).collect());
        }
        if !self.baseline.is_empty() {
            let row = |compared: &Compared| compared.told().map(|cell| escaped(&cell)).into();
            let head = ["", "baseline", "now", "ratio", ""];
            tables += &table("Beside the baseline", &head, self.baseline.iter().map(row).collect());
        }
        tables
    }
}

fn client(part: &Part) -> Vec<String> {
    let times = part.echo_times();
    let mut row = vec![escaped(&part.client), part.verdict.as_str().into()];
    row.extend([part.due, part.verified, part.lost, part.wrong].map(thousands));
    row.push(format!("{:.1}/s", part.rate));
    row.extend([times.p50_us, times.p99_us, times.max_us, part.late.p99_us].map(figure));
    row.extend([thousands(part.outages), format!("{:.2} s", part.longest_outage_ms as f64 / 1e3)]);
    row
}

/// A table of cells that are HTML already.
fn table(title: &str, head: &[&str], rows: Vec<Vec<String>>) -> String {
    let cells =
        |tag: &str, cells: &[String]| cells.iter().map(|cell| format!("<{tag}>{cell}</{tag}>")).collect::<String>();
    let head: Vec<_> = head.iter().map(ToString::to_string).collect();
    let rows: String = rows.iter().map(|row| format!("<tr>{}</tr>\n", cells("td", row))).collect();
    format!(
        "<section class=wide>\n<h2>{title}</h2>\n<table>\n<tr>{}</tr>\n{rows}</table>\n</section>\n",
        cells("th", &head)
    )
}

#[cfg(test)]
mod tests {
    use super::super::{parts::ServerShare, testing::sample};
    use super::*;

    #[test]
    fn the_page_says_what_followed_first() {
        let page = sample().to_html();
        assert!(
            page.contains("<span data-verdict=failed>✗ failed</span> · demo · 9,796 echoes verified</h1>"),
            "{page}"
        );
        assert!(page.contains("<p>10,000 due, 204 lost.</p>"), "{page}");
        assert!(page.contains("<p>Outages: 1; the longest 3.02 s (refused).</p>"), "{page}");
        let passed = ClientReport { lost: 0, ..sample() }.judged(&"p99 > 1s".parse().unwrap(), None).to_html();
        assert!(passed.contains("<span data-verdict=passed>✓ passed</span>"), "{passed}");
        assert!(passed.contains("<p class=kept>limit p99 &gt; 1s: 9.90 ms, kept</p>"), "{passed}");
    }

    #[test]
    fn the_page_tells_of_connections_and_of_each_address_that_served() {
        let mut report = ClientReport { resent: 7, ..sample() };
        let page = report.to_html();
        assert!(page.contains("<p>10,000 due, 204 lost, 7 resent.</p>"), "{page}");
        assert!(
            page.contains("<p>Connections: made 128, refused 600, reset 4, reconnects 64, renewed 3.</p>"),
            "{page}"
        );
        assert!(!page.contains("<h2>Servers</h2>"), "{page}");
        report.servers.insert("<b>".into(), ServerShare { connections: 1, verified: 1_000 });
        let page = report.to_html();
        let row = |cells: [&str; 3]| format!("<tr>{}</tr>", cells.map(|cell| format!("<td>{cell}</td>")).concat());
        for row in [row(["10.0.0.3:12345", "128", "9,796"]), row(["&lt;b&gt;", "1", "1,000"])] {
            assert!(page.contains(&row), "{page}");
        }
    }

    #[test]
    fn the_page_has_each_figure_beside_that_of_the_baseline() {
        let slow = ClientReport { response: ClientReport::default().response, lost: 0, ..sample() };
        let page = slow.judged(&Default::default(), Some(&sample())).to_html();
        let row = |cells: [&str; 5]| format!("<tr>{}</tr>", cells.map(|cell| format!("<td>{cell}</td>")).concat());
        for row in [
            row(["rate", "979.6/s", "979.6/s", "1.00x", "same"]),
            row(["p99", "9.90 ms", "990 µs", "0.10x", "same"]),
            row(["max", "10.00 ms", "1.00 ms", "0.10x", ""]),
            row(["lost", "204", "0", "0.00x", ""]),
        ] {
            assert!(page.contains(&row), "{row} {page}");
        }
        assert!(!sample().to_html().contains("baseline"));
    }

    #[test]
    fn no_text_of_a_report_is_taken_for_html() {
        const HOSTILE: &str = "<script>alert('\"&\n')</script>";
        let hostile = || HOSTILE.to_owned();
        let mut report = sample();
        (report.client, report.server, report.started) = (hostile(), hostile(), hostile());
        (report.obstacle, report.notes, report.own.notes) = (Some(hostile()), vec![hostile()], vec![hostile()]);
        report.outages.windows[0].why = hostile();
        let judged = super::super::Judged { limit: hostile(), value: hostile(), broken: true, client: Some(hostile()) };
        report.limits = vec![judged];
        let merged = ClientReport { clients: vec![Part { client: hostile(), ..Part::default() }], ..report };
        let page = merged.to_html();
        assert!(!page.contains("<script") && !page.contains("alert('"), "{page}");
        assert!(page.contains("&lt;script&gt;alert(&#39;&quot;&amp;\\n&#39;)&lt;/script&gt;"), "{page}");
    }

    #[test]
    fn a_page_names_no_other_place() {
        let page = sample().to_html();
        for word in ["src=", "href", "url(", "@import", "http:", "https:", "<script"] {
            assert!(!page.contains(word), "{word}");
        }
    }

    #[test]
    fn only_pictures_with_something_to_see_are_there() {
        let page = ClientReport::default().to_html();
        assert!(!page.contains("<svg"), "{page}");
        assert_eq!(sample().to_html().matches("<svg").count(), 4);
    }

    #[test]
    fn thousands_have_a_comma() {
        for (number, expected) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(number), expected);
        }
    }
}
