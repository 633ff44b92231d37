//! The control plane of one of the client's connections. A Caller may need many streams in its life, one after the other.
//!
//! It takes orders; [`converse`] does the talking, spawned into the actor's own context. Both hold the [`Journal`]; when both
//! have let go, the stream is closed and logged, and the `Stopped` is sent, also when either has panicked.

use crate::{
    connect::Connect,
    dialogue::{Plan, converse},
    journal::Journal,
    messages::Stop,
};
use actix::prelude::*;
use std::rc::Rc;
use tokio::sync::watch;

/// The actor of one of the client's connections.
pub(crate) struct Caller<C> {
    plan: Rc<Plan>,
    server: Rc<C>,
    journal: Rc<Journal>,
    order: watch::Sender<Option<Stop>>,
}

impl<C: Connect> Caller<C> {
    pub fn new(plan: Rc<Plan>, server: Rc<C>, journal: Journal) -> Self {
        Self { plan, server, journal: Rc::new(journal), order: watch::Sender::new(None) }
    }
}

impl<C: Connect> Actor for Caller<C> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let (plan, server, journal) = (self.plan.clone(), self.server.clone(), self.journal.clone());
        let conversation = converse(plan, server, self.order.subscribe(), journal);
        ctx.spawn(conversation.into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}

impl<C: Connect> Handler<Stop> for Caller<C> {
    type Result = ();

    fn handle(&mut self, stop: Stop, _: &mut Self::Context) {
        self.order.send_modify(|order| *order = (*order).max(Some(stop)));
    }
}
