//! Which reports count, of those that hold the same runs.
//!
//! Pure. A merged report cannot be taken apart: it counts with all its clients or not at all.

use super::document::ClientReport;
use std::collections::{BTreeMap, BTreeSet};

impl ClientReport {
    /// The names of its runs. A run without a name is like no other.
    fn runs(&self) -> BTreeSet<String> {
        let of_clients = self.clients.iter().map(|part| &part.run);
        let own = self.clients.is_empty().then_some(&self.run);
        of_clients.chain(own).filter(|run| !run.is_empty()).cloned().collect()
    }
}

/// Those of the reports that count, in the order given, and the clients whose runs stand in no report that counts. The report
/// with the most runs is taken first, so that the result does not depend on the order.
pub(super) fn distinct(reports: Vec<ClientReport>) -> (Vec<ClientReport>, Vec<String>) {
    let runs: Vec<_> = reports.iter().map(ClientReport::runs).collect();
    let mut by_size: Vec<_> = (0..reports.len()).collect();
    by_size.sort_by(|&one, &other| {
        let by_runs = || runs[one].cmp(&runs[other]);
        // Of two merges of the same clients the one that knows more servers, or misses more clients, comes first.
        let content = |n: usize| (reports[n].books.is_some(), reports[n].missing, reports[n].to_json());
        runs[other].len().cmp(&runs[one].len()).then_with(by_runs).then_with(|| content(other).cmp(&content(one)))
    });
    let (mut known, mut counted) = (BTreeSet::new(), BTreeSet::new());
    for n in by_size {
        if runs[n].is_disjoint(&known) {
            known.extend(runs[n].iter().cloned());
            counted.insert(n);
        }
    }
    let parts = reports.iter().flat_map(|report| &report.clients);
    let unknown = parts.filter(|part| !part.run.is_empty() && !known.contains(&part.run));
    let left_out: BTreeMap<_, _> = unknown.map(|part| (part.run.clone(), part.client.clone())).collect();
    let reports = (0..).zip(reports).filter(|(n, _)| counted.contains(n)).map(|(_, report)| report);
    (reports.collect(), left_out.into_values().collect())
}
