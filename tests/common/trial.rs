//! Tests that are reported as ignored, with the reason, where something that they need is missing.

use libtest_mimic::{Arguments, Completion, Trial};
use std::process::ExitCode;

/// A test and its name.
pub type Test = (String, Box<dyn FnOnce() + Send>);

/// These functions as tests, each by its own name.
macro_rules! tests {
    ($($test:ident,)*) => {
        vec![$((stringify!($test).to_owned(), Box::new($test) as Box<dyn FnOnce() + Send>)),*]
    };
}
pub(crate) use tests;

/// A test that is run unless there is an obstacle.
pub fn trial(
    name: impl Into<String>,
    obstacle: impl FnOnce() -> Option<String> + Send + 'static,
    test: impl FnOnce() + Send + 'static,
) -> Trial {
    Trial::ignorable_test(name, move || {
        Ok(match obstacle() {
            Some(reason) => Completion::ignored_with(reason),
            None => {
                test();
                Completion::Completed
            }
        })
    })
}

/// Runs tests one at a time.
pub fn run_in_turn(trials: impl IntoIterator<Item = Trial>) -> ExitCode {
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, trials.into_iter().collect()).exit_code()
}
