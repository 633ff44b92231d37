//! What the server's unit tests share: a listener, a real connection, and the record of one.

use crate::{
    decisions::ids::WorkerId,
    server::{
        connection::record::{ConnectionContext, Record},
        gate::Gate,
        listener::Listener,
        messages::ConnectionStopped,
        watch::{
            Watchable,
            news::{News, WorkerNews},
        },
    },
    settings::{ConnectionSettings, ListenSettings, Settings},
    testing::probe,
};
use slog::{Logger, o};
use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};
use tokio::{net::TcpStream, sync::mpsc::UnboundedReceiver};

pub(crate) const WORKER: WorkerId = WorkerId(1);

/// A listener on a free port, and its address.
pub(crate) fn listener() -> (Listener, SocketAddr) {
    let settings = ListenSettings { address: ([127, 0, 0, 1], 0).into(), backlog: 128, ..Settings::default().listen };
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

/// What a server with one Worker lets be seen before it runs.
pub(crate) fn watched() -> Watchable {
    Watchable::new(([127, 0, 0, 1], 1).into(), 1, Gate::new(1, 0, 1))
}

/// News that no one hears.
pub(crate) fn news() -> WorkerNews {
    WorkerNews::new(WORKER, Arc::default(), News::new())
}

/// A Worker's context for connections, and what it hears of their ends.
pub(crate) fn context(idle_timeout: Duration) -> (Rc<ConnectionContext>, UnboundedReceiver<ConnectionStopped>) {
    let (parent, heard) = probe();
    let settings = ConnectionSettings { idle_timeout, linger: Duration::from_secs(60), last_word: Duration::ZERO };
    let log = Logger::root(slog::Discard, o!());
    let listen = Settings::default().listen;
    (Rc::new(ConnectionContext { news: news(), listen, settings, log, parent, orphaned: Rc::default() }), heard)
}

/// A record that has a slot of its own.
pub(crate) fn record(context: Rc<ConnectionContext>) -> Record {
    record_at(&Gate::new(1, 0, 1), context)
}

/// A record with the next slot or place at `gate`.
pub(crate) fn record_at(gate: &Arc<Gate>, context: Rc<ConnectionContext>) -> Record {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let accepted = gate.poll_accept(&mut cx, Some(WORKER), |_| std::task::Poll::Ready(Ok(())));
    let std::task::Poll::Ready(Ok(((), permit, _))) = accepted else { panic!("there is room") };
    Record::new(permit, ([127, 0, 0, 1], 1).into(), context)
}
