//! How one metric is written with its samples.
//!
//! Relies on nothing of what is measured.

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeGaugeValue},
    metrics::MetricType,
};
use std::fmt;

/// Writes metrics with their samples.
pub(super) struct Samples<'a>(pub DescriptorEncoder<'a>);

type Labelled<V, const N: usize> = ([(&'static str, String); N], V);

impl Samples<'_> {
    pub fn counter<V: EncodeGaugeValue, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = Labelled<V, N>>,
    ) -> fmt::Result {
        self.write(name, help, MetricType::Counter, samples)
    }

    pub fn gauge<V: EncodeGaugeValue, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = Labelled<V, N>>,
    ) -> fmt::Result {
        self.write(name, help, MetricType::Gauge, samples)
    }

    fn write<V: EncodeGaugeValue, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        samples: impl IntoIterator<Item = Labelled<V, N>>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in samples {
            // As a gauge, a counter is written by the name that it has. As a counter it would get a second `_total`.
            match N {
                0 => metric.encode_gauge(&value)?,
                _ => metric.encode_family(&labels)?.encode_gauge(&value)?,
            }
        }
        Ok(())
    }
}
