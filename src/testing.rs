//! What the actors' unit tests share: a probe to stand in for a parent, a log to wait for, and a real connection.

use crate::{
    connection::{ConnectionContext, Life},
    gate::Gate,
    listener::Listener,
    messages::ConnectionStopped,
    settings::{ConnectionSettings, ListenSettings},
    worker::WorkerId,
};
use actix::{dev::ToEnvelope, prelude::*};
use slog::{Drain, Logger, OwnedKVList, Record, o};
use std::{cell::Cell, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};
use tokio::{
    net::TcpStream,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

pub(crate) const WORKER: WorkerId = WorkerId(1);

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

/// Waits for `wanted` in a log; what comes before it is passed over.
pub(crate) async fn logged(log: &mut UnboundedReceiver<String>, wanted: &str) {
    while log.recv().await.expect("the log is open") != wanted {}
}

/// A listener on a free port, and its address.
pub(crate) fn listener() -> (Listener, SocketAddr) {
    let settings = ListenSettings { address: ([127, 0, 0, 1], 0).into(), backlog: 128 };
    let listener = Listener::bind(&settings).expect("port 0 is free");
    let address = listener.address().expect("it is bound");
    (listener, address)
}

/// Both ends of a connection: the server's, with the options that the listener gives, and the client's.
pub(crate) async fn connection() -> (TcpStream, TcpStream) {
    let (listener, address) = listener();
    let client = TcpStream::connect(address).await.expect("it listens");
    let (server, _) = listener.acceptor().expect("it is open").accept().await.expect("a client waits");
    (server, client)
}

/// A Worker's context for connections, and what it hears of their ends.
pub(crate) fn context(idle_timeout: Duration) -> (Rc<ConnectionContext>, UnboundedReceiver<ConnectionStopped>) {
    let (parent, heard) = probe();
    let settings = ConnectionSettings { idle_timeout, linger: Duration::from_secs(60) };
    let log = Logger::root(slog::Discard, o!());
    (Rc::new(ConnectionContext { worker: WORKER, settings, log, parent, orphaned: Cell::new(false) }), heard)
}

/// A life that has a slot of its own.
pub(crate) fn life(context: Rc<ConnectionContext>) -> Life {
    life_at(&Gate::new(1, 0), context)
}

/// A life with the next slot or place at `gate`.
pub(crate) fn life_at(gate: &Arc<Gate>, context: Rc<ConnectionContext>) -> Life {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let accepted = gate.poll_accept(&mut cx, WORKER, |_| std::task::Poll::Ready(Ok(())));
    let std::task::Poll::Ready(Ok(((), permit, _))) = accepted else { panic!("there is room") };
    Life::new(permit, ([127, 0, 0, 1], 1).into(), context)
}
