//! What the actors' unit tests share: a probe in the place of a parent, a log to wait for, and a real connection.

use actix::{dev::ToEnvelope, prelude::*};
use slog::{Drain, Logger, OwnedKVList, Record, o};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Passes on every message that it gets. If there is more than one kind of them, `T` is an enum.
pub(crate) struct Probe<T>(UnboundedSender<T>);

impl<T: Unpin + 'static> Actor for Probe<T> {
    type Context = Context<Self>;
}

impl<M: Message<Result = ()> + Into<T>, T: Unpin + 'static> Handler<M> for Probe<T> {
    type Result = ();

    fn handle(&mut self, message: M, _: &mut Self::Context) {
        let _ = self.0.send(message.into());
    }
}

/// A probe's address, and what it hears.
pub(crate) fn probe<M>() -> (Recipient<M>, UnboundedReceiver<M>)
where
    M: Message<Result = ()> + Send + Unpin + 'static,
    Context<Probe<M>>: ToEnvelope<Probe<M>, M>,
{
    let (probe, heard) = probe_of_many();
    (probe.recipient(), heard)
}

/// As `probe`, for more than one kind of messages. They are heard in the order in which they were sent.
pub(crate) fn probe_of_many<T: Unpin + 'static>() -> (Addr<Probe<T>>, UnboundedReceiver<T>) {
    let (sender, heard) = unbounded_channel();
    (Probe(sender).start(), heard)
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
