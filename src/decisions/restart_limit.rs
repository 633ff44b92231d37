//! Decides how often a child may be restarted before its supervisor gives up.
//!
//! Pure: it reads no clock, its user passes the time.

use std::{collections::VecDeque, time::Duration};

/// At most `max` restarts within any `window`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RestartLimit {
    max: usize,
    window: Duration,
    /// When the restarts within the window were granted, oldest first.
    granted: VecDeque<Duration>,
}

impl RestartLimit {
    /// Grants up to `max` restarts within `window`.
    pub fn new(max: usize, window: Duration) -> Self {
        Self { max, window, granted: VecDeque::new() }
    }

    /// Changes the limit. What was granted still counts.
    pub fn change(&mut self, max: usize, window: Duration) {
        (self.max, self.window) = (max, window);
    }

    /// A child has crashed at `now` (counted from any fixed moment). Gives the number of restarts within the window, this
    /// one included, or `None` if that would be more than `max`.
    pub fn restart(&mut self, now: Duration) -> Option<usize> {
        while self.granted.front().is_some_and(|&then| now.saturating_sub(then) >= self.window) {
            self.granted.pop_front();
        }
        (self.granted.len() < self.max).then(|| {
            self.granted.push_back(now);
            self.granted.len()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_more_than_the_limit_within_the_window_is_too_many() {
        let mut limit = RestartLimit::new(2, 10 * SECOND);
        assert_eq!(limit.restart(SECOND), Some(1));
        assert_eq!(limit.restart(2 * SECOND), Some(2));
        assert_eq!(limit.restart(3 * SECOND), None);
    }

    #[test]
    fn a_restart_is_forgotten_when_the_window_has_passed() {
        let mut limit = RestartLimit::new(1, 10 * SECOND);
        assert_eq!(limit.restart(SECOND), Some(1));
        assert_eq!(limit.restart(11 * SECOND - Duration::from_nanos(1)), None);
        assert_eq!(limit.restart(11 * SECOND), Some(1));
    }

    #[test]
    fn with_a_limit_of_zero_the_first_crash_is_too_many() {
        assert_eq!(RestartLimit::new(0, SECOND).restart(SECOND), None);
    }
}
