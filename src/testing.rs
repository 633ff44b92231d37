//! What the actors' unit tests share: a probe in the place of a parent, a log to wait for, and a real connection.

use actix::{dev::ToEnvelope, prelude::*};
use slog::{Drain, Logger, OwnedKVList, Record, o};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Passes on every message that it gets.
pub(crate) struct Probe<M>(UnboundedSender<M>);

impl<M: Unpin + 'static> Actor for Probe<M> {
    type Context = Context<Self>;
}

impl<M: Message<Result = ()> + Unpin + 'static> Handler<M> for Probe<M> {
    type Result = ();

    fn handle(&mut self, message: M, _: &mut Self::Context) {
        let _ = self.0.send(message);
    }
}

/// A probe's address, and what it hears.
pub(crate) fn probe<M>() -> (Recipient<M>, UnboundedReceiver<M>)
where
    M: Message<Result = ()> + Send + Unpin + 'static,
    Context<Probe<M>>: ToEnvelope<Probe<M>, M>,
{
    let (sender, heard) = unbounded_channel();
    (Probe(sender).start().recipient(), heard)
}

/// A log, and the messages that come into it.
pub(crate) fn log() -> (Logger, UnboundedReceiver<String>) {
    struct Channel(UnboundedSender<String>);
    impl Drain for Channel {
        type Ok = ();
        type Err = slog::Never;

        fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), slog::Never> {
            let _ = self.0.send(record.msg().to_string());
            Ok(())
        }
    }
    let (sender, logged) = unbounded_channel();
    (Logger::root(Channel(sender).fuse(), o!()), logged)
}

/// Waits for `wanted` in a log, and skips what comes before it.
pub(crate) async fn logged(log: &mut UnboundedReceiver<String>, wanted: &str) {
    while log.recv().await.expect("the log is open") != wanted {}
}
