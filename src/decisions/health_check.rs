//! The message of the health check. The client writes it, and the server knows it by its form, so that its bytes are left out of
//! the sums of what the server's clients have sent.
//!
//! Relies on the check to send its message at once: it is short, so it comes in one piece.

use std::time::Duration;

const BEGIN: &str = "healthcheck";

/// The message of the process `process` at `now`, counted from any fixed moment. It differs from that of every other check.
///
/// ```
/// use supervised_echo::decisions::health_check;
///
/// let message = health_check::message(7, std::time::Duration::from_nanos(42));
/// assert_eq!(message, "healthcheck 7 42\n");
/// assert!(health_check::is_message(message.as_bytes()));
/// ```
pub fn message(process: u32, now: Duration) -> String {
    format!("{BEGIN} {process} {}\n", now.as_nanos())
}

/// Whether these bytes are the message of a check, and nothing more.
pub fn is_message(bytes: &[u8]) -> bool {
    let is_number = |word: &[u8]| !word.is_empty() && word.len() < 40 && word.iter().all(u8::is_ascii_digit);
    let Some(words) = bytes.strip_prefix(BEGIN.as_bytes()).and_then(|rest| rest.strip_suffix(b"\n")) else {
        return false;
    };
    let mut words = words.split(|&byte| byte == b' ');
    words.next() == Some(b"")
        && words.next().is_some_and(is_number)
        && words.next().is_some_and(is_number)
        && words.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_own_messages_are_known() {
        for (process, now) in [(0, Duration::ZERO), (u32::MAX, Duration::MAX)] {
            let message = message(process, now);
            assert!(is_message(message.as_bytes()), "{message}");
            assert!(message.len() <= usize::from(u8::MAX));
        }
    }

    #[test]
    fn what_only_resembles_one_is_not_taken_for_it() {
        let long = format!("healthcheck 1 {}\n", "1".repeat(40));
        for other in [
            "",
            "\n",
            "healthcheck",
            "healthcheck\n",
            "healthcheck 1\n",
            "healthcheck 1 2",
            "healthcheck 1 2\n3",
            "healthcheck 1 2\n\n",
            "healthcheck 1  2\n",
            "healthcheck 1 2 3\n",
            "healthcheck a 2\n",
            "healthchecks 1 2\n",
            " healthcheck 1 2\n",
            &long,
        ] {
            assert!(!is_message(other.as_bytes()), "{other:?}");
        }
    }
}
