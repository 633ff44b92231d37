//! The settings in force, as `/v1/settings` and the metrics show them. A program puts them in, and anew after each reload.

use serde::Serialize;
use serde_json::{Value, json};
use std::{
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
};

/// The settings in force. All clones share them, so that a program can hand one to its [`Admin`](crate::Admin) and keep one
/// for its reloads.
#[derive(Debug, Clone, Default)]
pub struct InForce(Arc<RwLock<State>>);

#[derive(Debug)]
struct State {
    /// `None` if the Admin was given none.
    document: Option<Value>,
    loaded: Loaded,
}

/// How the settings were read last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Loaded {
    pub successful: bool,
    /// When they were read successfully.
    pub at: SystemTime,
}

impl Default for State {
    fn default() -> Self {
        Self { document: None, loaded: Loaded { successful: true, at: SystemTime::now() } }
    }
}

impl InForce {
    /// These settings are in force, except that the keys named wait for a restart: they stay as they were set before.
    pub fn set(&self, settings: &impl Serialize, restart_needed: &[&str]) {
        let document = serde_json::to_value(settings)
            .map(|settings| json!({ "settings": settings, "restart_needed": restart_needed }));
        self.change(|state| {
            let document = document.ok().map(|mut document| {
                for key in restart_needed {
                    let place = format!("/settings/{}", key.replace('.', "/"));
                    let before = state.document.as_ref().and_then(|before| before.pointer(&place));
                    if let (Some(value), Some(before)) = (document.pointer_mut(&place), before) {
                        *value = before.clone();
                    }
                }
                document
            });
            *state = State { document, ..State::default() };
        });
    }

    /// Others were to be read and could not be: these stay in force.
    pub fn refused(&self) {
        self.change(|state| state.loaded.successful = false);
    }

    pub(super) fn document(&self) -> Option<Value> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).document.clone()
    }

    pub(super) fn loaded(&self) -> Loaded {
        self.0.read().unwrap_or_else(PoisonError::into_inner).loaded
    }

    /// Each change is one assignment, so a panic in between leaves a whole state.
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}
