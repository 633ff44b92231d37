//! A logger that cannot harm the program. Supervision must not depend on a log. An actor writes a record in its `Drop` too.
//! A second panic there would end the process, and a panic before the message to the parent would leave the parent waiting.
//!
//! Relies on nothing that the drain does: the drain's panic ends here, and its error is dropped. slog's usual `fuse()`
//! turns every error into a panic.

use slog::{Drain, Level, Logger, Never, OwnedKVList, Record, o};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The same log, but its failures and panics stay in it.
pub(crate) fn contained(log: Logger) -> Logger {
    Logger::root(Contained(log), o!())
}

struct Contained(Logger);

impl Drain for Contained {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        // Only the drain sees what a panic has left half done.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            // To hand a record on takes memory, which one that no one wants does not get.
            if self.0.is_enabled(record.level()) { Drain::log(&self.0, record, values) } else { Ok(()) }
        }));
        Ok(())
    }

    fn is_enabled(&self, level: Level) -> bool {
        catch_unwind(AssertUnwindSafe(|| self.0.is_enabled(level))).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slog::info;
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    struct Failing(Arc<AtomicUsize>);

    impl Drain for Failing {
        type Ok = ();
        type Err = &'static str;

        fn log(&self, _: &Record<'_>, _: &OwnedKVList) -> Result<(), &'static str> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Err("no log")
        }

        fn is_enabled(&self, level: Level) -> bool {
            level.is_at_least(Level::Info)
        }
    }

    #[test]
    fn a_drain_that_fails_under_fuse_panics_no_caller_not_even_one_that_panics() {
        struct Tells(Logger);
        impl Drop for Tells {
            fn drop(&mut self) {
                info!(self.0, "dropped");
            }
        }
        let tried = Arc::new(AtomicUsize::new(0));
        let log = contained(Logger::root(Failing(tried.clone()).fuse(), o!()));
        info!(log, "tried");
        assert!(log.is_info_enabled() && !log.is_debug_enabled());
        let tells = Tells(log);
        let panicked = catch_unwind(AssertUnwindSafe(move || {
            let _tells = tells;
            panic!("told to");
        }));
        assert!(panicked.is_err());
        assert_eq!(tried.load(Ordering::Relaxed), 2);
    }
}
