//! The parameters of a request. Each is taken by its name and read at once; a wrong one, and one that no endpoint takes, is
//! refused.
//!
//! No value that an endpoint takes needs an escape, so `%` and `+` mean nothing here.

use crate::admin::answer::Refusal;
use hyper::StatusCode;
use std::ops::RangeInclusive;

pub(super) struct Query<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Query<'a> {
    pub fn of(query: Option<&'a str>) -> Self {
        let parameters = query.unwrap_or_default().split('&').filter(|parameter| !parameter.is_empty());
        Self(parameters.map(|parameter| parameter.split_once('=').unwrap_or((parameter, ""))).collect())
    }

    /// All values of a parameter that may be repeated.
    pub fn all<T>(&mut self, name: &str, read: impl Fn(&str) -> Option<T>, expected: &str) -> Result<Vec<T>, Refusal> {
        let given = self.0.extract_if(.., |(given, _)| *given == name);
        given.map(|(_, value)| read(value).ok_or_else(|| bad(&format!("{name}: expected {expected}")))).collect()
    }

    /// The value of a parameter, if it is there.
    pub fn one<T>(
        &mut self,
        name: &str,
        read: impl Fn(&str) -> Option<T>,
        expected: &str,
    ) -> Result<Option<T>, Refusal> {
        let mut values = self.all(name, read, expected)?;
        let value = values.pop();
        if values.is_empty() { Ok(value) } else { Err(bad(&format!("{name}: given more than once"))) }
    }

    pub fn number(&mut self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, Refusal> {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        self.one(name, |value| value.parse().ok().filter(|number| range.contains(number)), &expected)
    }

    /// All parameters that this endpoint takes are taken.
    pub fn end(self) -> Result<(), Refusal> {
        // A name may be anything and is not repeated.
        if self.0.is_empty() { Ok(()) } else { Err(bad("a parameter that is not known here")) }
    }
}

fn bad(reason: &str) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, reason.into())
}
