//! One report out of the reports of many clients.
//!
//! Counts and histograms add, and every percentile is read from the histogram of all. Clients that began at different times
//! are laid on one time by `started`, so it relies on their clocks to agree to about a second.

use super::{
    distinct::distinct,
    document::ClientReport,
    parts::{Bytes, Histograms, Part, ServerShare, Step, Timeline},
    sums::{all_at_once, wider},
    times::Times,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

/// Merges reports into one. The same run counts once. A report that was merged itself counts as its clients, and not at all if
/// some of them count already: its others are then noted and missing. `expected` is how many clients there should be; those
/// that are missing make a failure. With 0 only those count that an earlier merge missed. Limits are not held: see
/// [`ClientReport::judged`].
pub fn merge(reports: impl IntoIterator<Item = ClientReport>, expected: u64) -> ClientReport {
    let (reports, left_out) = distinct(reports.into_iter().collect());
    let starts: Vec<_> = reports.iter().filter_map(|report| humantime::parse_rfc3339(&report.started).ok()).collect();
    let first = starts.iter().min().copied();
    let later = |report: &ClientReport| {
        let started = humantime::parse_rfc3339(&report.started).ok();
        first.zip(started).map_or(Duration::ZERO, |(first, started)| started.duration_since(first).unwrap_or_default())
    };

    let (version, bytes) = (env!("CARGO_PKG_VERSION").into(), Some(Bytes::default()));
    let mut sum = ClientReport { version, bytes, span_ms: Some(0), ..ClientReport::default() };
    reports.iter().for_each(|report| sum.add(report, later(report)));
    sum.client = match sum.clients.len() {
        1 => "1 client".into(),
        n => format!("{n} clients"),
    };
    sum.run = reports.iter().map(|report| &*report.run).collect::<Vec<_>>().join("+");
    sum.started =
        first.map(|first: SystemTime| humantime::format_rfc3339_millis(first).to_string()).unwrap_or_default();
    let timelines: Vec<_> =
        reports.iter().map(|report| (&report.timeline, later(report).as_secs_f64().round() as u64)).collect();
    sum.timeline = Timeline::sum(&timelines);
    sum.outages.windows.sort_by(|one, other| one.from_s.total_cmp(&other.from_s));
    sum.outages.all_at_once_ms = all_at_once(&sum.outages.windows, &sum.clients);
    if expected > 0 {
        sum.missing = expected.saturating_sub(sum.clients.len() as u64);
    }
    if !left_out.is_empty() {
        sum.missing = sum.missing.max(left_out.len() as u64);
        let names = left_out.join(", ");
        sum.notes.push(format!("not counted: {names}, only found in a merge with clients that are counted already"));
    }
    if reports.is_empty() {
        sum.obstacle = Some("there is no report".into());
    }
    agree(&mut sum, &reports);
    let round_trip = sum.round_trip;
    let servers = reports.iter().filter_map(|report| report.books.as_ref()).map(|books| books.servers).sum();
    sum.with_round_trip(round_trip).with_servers(servers).judged(&Default::default(), None)
}

impl ClientReport {
    fn add(&mut self, other: &Self, later: Duration) {
        for (sum, count) in [
            (&mut self.sent, other.sent),
            (&mut self.verified, other.verified),
            (&mut self.wrong, other.wrong),
            (&mut self.lost, other.lost),
            (&mut self.given_up, other.given_up),
            (&mut self.unreachable, other.unreachable),
            (&mut self.crashed, other.crashed),
            (&mut self.due, other.due),
            (&mut self.resent, other.resent),
            (&mut self.missing, other.missing),
            (&mut self.own.throttled_ms, other.own.throttled_ms),
        ] {
            *sum += count;
        }
        self.stopped = self.stopped.or(other.stopped);
        self.forced |= other.forced;
        self.elapsed_ms = self.elapsed_ms.max(later.as_millis() as u64 + other.elapsed_ms);
        self.elapsed_s = self.elapsed_ms as f64 / 1e3;
        let longer = |(span, other): (u64, u64)| span.max(later.as_millis() as u64 + other);
        self.span_ms = self.span_ms.zip(other.span_ms).map(longer);
        self.lost_by.add(other.lost_by);
        self.connections.add(other.connections);
        self.bytes = self.bytes.zip(other.bytes).map(|(bytes, more)| bytes + more);
        for (address, share) in &other.servers {
            let ServerShare { connections, verified } = self.servers.entry(address.clone()).or_default();
            (*connections, *verified) = (*connections + share.connections, *verified + share.verified);
        }
        self.add_times(other);
        self.add_steps(&other.steps);
        self.outages.add(&other.outages, later);
        self.own.cpu = self.own.cpu.max(other.own.cpu);
        let named =
            |text: &String| if other.clients.is_empty() { format!("{}: {text}", other.client) } else { text.clone() };
        self.own.notes.extend(other.own.notes.iter().map(named));
        self.notes.extend(other.notes.iter().cloned());
        self.obstacle = self.obstacle.take().or_else(|| other.problem().as_ref().map(named));
        let broken = other.limits.iter().filter(|limit| limit.broken).cloned();
        self.limits.extend(broken.map(|mut limit| {
            limit.client.get_or_insert_with(|| other.client.clone());
            limit
        }));
        let clients = if other.clients.is_empty() { vec![Part::of(other)] } else { other.clients.clone() };
        self.clients.extend(clients.into_iter().map(|part| part.moved(later.as_secs_f64())));
    }

    fn add_times(&mut self, other: &Self) {
        let Histograms { response, round_trip, late, connect } = &mut self.hdr;
        for (times, hdr, other_times, other_hdr) in [
            (&mut self.response, response, &other.response, &other.hdr.response),
            (&mut self.round_trip, round_trip, &other.round_trip, &other.hdr.round_trip),
            (&mut self.late, late, &other.late, &other.hdr.late),
            (&mut self.connect, connect, &other.connect, &other.hdr.connect),
        ] {
            hdr.add(other_hdr);
            *times = Times::within(hdr, wider(times.extremes(), other_times.extremes()));
        }
    }

    fn add_steps(&mut self, steps: &[Step]) {
        let lacking = steps.len().saturating_sub(self.steps.len());
        self.steps.extend((0..lacking).map(|_| Step::default()));
        for (sum, step) in self.steps.iter_mut().zip(steps) {
            sum.rate += step.rate;
            sum.due += step.due;
            sum.verified += step.verified;
            sum.hdr.add(&step.hdr);
            sum.response = Times::within(&sum.hdr, wider(sum.response.extremes(), step.response.extremes()));
        }
    }
}

impl Part {
    fn moved(self, later_s: f64) -> Self {
        Self { from_s: self.from_s + later_s, to_s: self.to_s + later_s, ..self }
    }

    fn of(report: &ClientReport) -> Self {
        Self {
            client: report.client.clone(),
            run: report.run.clone(),
            from_s: 0.0,
            // From T0 on, as its outages. `elapsed_s` also has the time before, and `span_ms` the rest of a timetable.
            to_s: report.span_ms.map_or(report.elapsed_s, |span| report.elapsed_s.min(span as f64 / 1e3)),
            verdict: report.verdict,
            due: report.due,
            verified: report.verified,
            wrong: report.wrong,
            lost: report.lost,
            rate: report.rate().unwrap_or_default(),
            response: report.response,
            round_trip: report.round_trip,
            late: report.late,
            outages: report.outages.count,
            longest_outage_ms: report.outages.longest_ms,
        }
    }
}

/// Takes over what all reports agree on, and notes what they differ in.
fn agree(sum: &mut ClientReport, reports: &[ClientReport]) {
    let Some(first) = reports.first() else { return };
    let each = |text: fn(&ClientReport) -> &String| reports.iter().map(text).collect::<BTreeSet<_>>().into_iter();
    let versions: Vec<_> = each(|report| &report.version).map(String::as_str).collect();
    if versions.len() > 1 {
        sum.notes.push(format!("the clients are of different versions: {}", versions.join(", ")));
    }
    sum.server = each(|report| &report.server).map(String::as_str).collect::<Vec<_>>().join(", ");
    let mut unlike = Vec::new();
    let sections: BTreeSet<_> = reports.iter().flat_map(|report| report.settings.keys()).collect();
    for section in sections {
        let of = |report: &ClientReport| report.settings.get(section).cloned().unwrap_or_default();
        let keys: BTreeSet<_> = reports.iter().flat_map(|report| of(report).into_keys()).collect();
        let mut same = BTreeMap::new();
        for key in keys {
            match of(first)
                .remove(&key)
                .filter(|value| reports.iter().all(|report| of(report).get(&key) == Some(value)))
            {
                Some(value) => drop(same.insert(key, value)),
                // Clients have names of their own.
                None if (section.as_str(), key.as_str()) == ("client", "id") => {}
                None => unlike.push(format!("{section}.{key}")),
            }
        }
        sum.settings.insert(section.clone(), same);
    }
    if !unlike.is_empty() {
        sum.notes.push(format!("the clients' settings differ in {}", unlike.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        parts::{Judged, Outages, Own, Row, Verdict, Window},
        testing::sample,
        times::Hdr,
    };
    use super::*;
    use proptest::prelude::*;

    fn named(client: &str) -> ClientReport {
        ClientReport { client: client.into(), run: client.into(), ..sample() }
    }

    #[test]
    fn counts_add_and_the_extremes_are_those_of_all() {
        let mut slow = named("b");
        slow.round_trip.max_us = Some(7_777);
        let merged = merge([named("a"), slow], 2);
        assert_eq!((&*merged.client, merged.due, merged.verified, merged.lost), ("2 clients", 20_000, 19_592, 408));
        assert_eq!((merged.lost_by.timeout, merged.connections.refused, merged.connections.renewed), (400, 1_200, 6));
        assert_eq!(merged.servers["10.0.0.3:12345"].verified, 19_592);
        assert_eq!((merged.max_us, merged.round_trip.count), (Some(7_777), 19_592));
        assert_eq!((merged.missing, merged.verdict, merged.exit_code()), (0, Verdict::Failed, 1));
        assert!(merged.notes.is_empty(), "{:?}", merged.notes);
    }

    #[test]
    fn the_same_run_counts_once_also_if_it_was_merged_before() {
        let pair = merge([named("a"), named("b")], 2);
        let merged = merge([named("a"), named("a")], 1);
        assert_eq!((&*merged.client, merged.clients.len(), merged.due), ("1 client", 1, 10_000));
        assert_eq!(merge([merge([named("a")], 1)], 1).clients.len(), 1, "the merge of one has its name");
        let merged = merge([pair.clone(), pair, named("a"), named("c")], 3);
        let clients: Vec<_> = merged.clients.iter().map(|part| &*part.client).collect();
        assert_eq!((clients, merged.due, merged.missing), (vec!["a", "b", "c"], 30_000, 0));
    }

    /// These reports in every order.
    fn orders(reports: &[ClientReport]) -> Vec<Vec<ClientReport>> {
        if reports.is_empty() {
            return vec![Vec::new()];
        }
        let begun_with = |n: usize| {
            let mut rest = reports.to_vec();
            let first = rest.remove(n);
            orders(&rest).into_iter().map(move |rest| [vec![first.clone()], rest].concat())
        };
        (0..reports.len()).flat_map(begun_with).collect()
    }

    #[test]
    fn of_two_reports_of_the_same_runs_the_same_one_counts_in_any_order() {
        let (client, run) = (String::from("a"), String::from("a"));
        let own = ClientReport { client, run, sent: 1, due: 1, verified: 1, ..ClientReport::default() };
        let lacks_one = merge([own.clone()], 2);
        for order in orders(&[own, lacks_one]) {
            let merged = merge(order, 0);
            assert_eq!((merged.missing, merged.due, merged.exit_code()), (1, 1, 1));
        }
    }

    #[test]
    fn no_client_is_dropped_in_any_order_of_the_reports_that_hold_it() {
        let of = |names: &[&str]| {
            let report = |name: &&str| {
                let (client, run) = (String::from(*name), String::from(*name));
                ClientReport { client, run, sent: 1, due: 1, verified: 1, ..ClientReport::default() }
            };
            merge(names.iter().map(report), 0)
        };
        for (given, clients, left_out) in [
            (&[&["a"][..], &["a", "b"]][..], "ab", ""),
            (&[&["a"], &["b"], &["c"], &["a", "b"]], "abc", ""),
            (&[&["a", "b"], &["a", "b", "c"], &["c"], &["d"]], "abcd", ""),
            (&[&["a", "b"], &["b", "c"], &["c"]], "abc", ""),
            (&[&["a", "b"], &["b", "c"]], "ab", "c"),
            (&[&["a", "b"], &["b", "c", "d"]], "bcd", "a"),
        ] {
            let given: Vec<_> = given.iter().map(|names| of(names)).collect();
            for order in orders(&given) {
                let named: Vec<_> = order.iter().map(|report| report.run.clone()).collect();
                let merged = merge(order, clients.len() as u64);
                let counted: BTreeSet<_> = merged.clients.iter().map(|part| &*part.client).collect();
                assert_eq!(counted.into_iter().collect::<String>(), clients, "{named:?}");
                assert_eq!((merged.due, merged.clients.len()), (clients.len() as u64, clients.len()), "{named:?}");
                let code = u8::from(!left_out.is_empty());
                assert_eq!((merged.missing, merged.exit_code()), (code.into(), code), "{named:?}");
                let note =
                    format!("not counted: {left_out}, only found in a merge with clients that are counted already");
                assert_eq!(merged.notes, if left_out.is_empty() { vec![] } else { vec![note] }, "{named:?}");
            }
        }
    }

    #[test]
    fn fewer_reports_than_expected_are_a_failure() {
        let clean = |client| ClientReport { lost: 0, ..named(client) };
        let merged = merge([clean("a"), clean("b")], 3);
        assert_eq!((merged.missing, merged.exit_code()), (1, 1));
        assert_eq!(merge([clean("a"), clean("b")], 2).exit_code(), 0);
        assert_eq!(merge([merged.clone()], 0).missing, 1);
        assert_eq!(merge([merged, clean("c")], 3).missing, 0);
        let none = merge([], 2);
        assert_eq!((none.missing, none.exit_code(), none.problem()), (2, 1, Some("there is no report".into())));
    }

    #[test]
    fn what_one_client_met_is_told_with_its_name() {
        let mut bad = ClientReport { obstacle: Some("cannot connect".into()), ..named("b") };
        bad.own = Own { cpu: 0.9, throttled_ms: 3, notes: vec!["it was busy".into()] };
        bad.limits = ["p99 > 1ms", "p50 > 1s"]
            .map(|limit| Judged {
                limit: limit.into(),
                value: "9.90 ms".into(),
                broken: limit == "p99 > 1ms",
                client: None,
            })
            .into();
        let merged = merge([named("a"), bad], 2);
        assert_eq!(merged.problem().unwrap(), "b: cannot connect");
        assert_eq!((merged.own.cpu, merged.own.throttled_ms, &*merged.own.notes[0]), (0.9, 3, "b: it was busy"));
        let [limit] = &merged.limits[..] else { panic!("{:?}", merged.limits) };
        assert_eq!((&*limit.limit, limit.client.as_deref()), ("p99 > 1ms", Some("b")));
    }

    #[test]
    fn unlike_settings_and_versions_are_noted_and_a_name_is_not() {
        let mut other = named("b");
        other.settings.get_mut("traffic").unwrap().insert("rate".into(), "500/s".into());
        other.settings.insert("client".into(), BTreeMap::from([("id".into(), "b".into())]));
        other.version = "9.9.9".into();
        let merged = merge([named("a"), other], 2);
        let notes =
            ["the clients are of different versions: 0.2.0, 9.9.9", "the clients' settings differ in traffic.rate"];
        assert_eq!(merged.notes, notes);
        assert!(merged.settings["traffic"].is_empty());
    }

    #[test]
    fn clients_that_began_later_are_laid_on_the_same_time() {
        let late = ClientReport { started: "2026-11-24T09:00:03.000Z".into(), ..named("b") };
        let merged = merge([late, named("a")], 2);
        assert_eq!((&*merged.started, merged.elapsed_ms), ("2026-11-24T09:00:00.000Z", 13_000));
        let due: Vec<_> = merged.timeline.rows.iter().map(|row| row.due).collect();
        assert_eq!(due, [1_000, 1_000, 1_000, 2_000, 2_000, 2_000, 2_000, 2_000, 2_000, 2_000, 1_000, 1_000, 1_000]);
        let from: Vec<_> = merged.outages.windows.iter().map(|window| (window.from_s * 10.0).round() / 10.0).collect();
        assert_eq!(from, [2.1, 5.1]);
        // Until 3 s the first one runs alone, and it is out from 2.1 s on.
        assert_eq!(merged.outages.all_at_once_ms, 900);
    }

    #[test]
    fn a_client_runs_from_its_first_message_on_and_not_from_its_start() {
        let of = |name, elapsed_s, span_ms, (from_s, to_s)| {
            let windows = vec![Window { from_s, to_s, ..Window::default() }];
            let outages = Outages { count: 1, windows, ..Outages::default() };
            ClientReport { elapsed_s, span_ms: Some(span_ms), outages, ..named(name) }
        };
        // The first one had its last connection after 5 s, and ended out. The second one goes on, and is out for longer.
        let merged = merge([of("a", 13.0, 8_000, (6.0, 8.0)), of("b", 20.0, 20_000, (6.0, 12.0))], 2);
        assert_eq!(merged.clients.iter().map(|part| part.to_s).collect::<Vec<_>>(), [8.0, 20.0]);
        assert_eq!(merged.outages.all_at_once_ms, 6_000);
    }

    /// The report of a run whose messages, each with the second in which it was due, took so long.
    fn run(name: &str, nanos: &[(u64, u64)]) -> ClientReport {
        let (mut hdr, mut rows) = (Histograms::default(), BTreeMap::<u64, (Row, Hdr)>::new());
        for &(at_s, nanos) in nanos {
            hdr.round_trip.record_n(nanos, 1);
            let (row, row_hdr) = rows.entry(at_s).or_insert_with(|| (Row { at_s, ..Row::default() }, Hdr::coarse()));
            row_hdr.record_n(nanos, 1);
            (row.due, row.verified) = (row.due + 1, row.verified + 1);
            row.max_us = row.max_us.max(Some(nanos / 1_000));
        }
        let settled = |(row, hdr): (Row, Hdr)| Row { buckets_ns: hdr.buckets().collect(), ..row }.settled();
        let micros = || nanos.iter().map(|(_, nanos)| nanos / 1_000);
        let times = Times::within(&hdr.round_trip, micros().min().zip(micros().max()));
        let timeline = Timeline { interval_s: 1, rows: rows.into_values().map(settled).collect() };
        let n = nanos.len() as u64;
        ClientReport { run: name.into(), sent: n, due: n, verified: n, hdr, timeline, ..ClientReport::default() }
            .with_round_trip(times)
    }

    proptest! {
        #[test]
        fn the_merge_of_a_split_run_equals_the_whole_bucket_for_bucket(
            nanos in prop::collection::vec((0..20_u64, 0..1_u64 << 36), 1..200), parts in 1..6_usize,
        ) {
            let whole = run("whole", &nanos);
            let share = |n| nanos.iter().skip(n).step_by(parts).copied().collect::<Vec<_>>();
            let merged = merge((0..parts).map(|n| run(&n.to_string(), &share(n))), parts as u64);
            prop_assert!(merged.hdr.round_trip.buckets().eq(whole.hdr.round_trip.buckets()));
            prop_assert_eq!(merged.round_trip, whole.round_trip);
            prop_assert_eq!(merged.timeline, whole.timeline);
            prop_assert_eq!((merged.due, merged.verified), (whole.due, whole.verified));
        }
    }
}
