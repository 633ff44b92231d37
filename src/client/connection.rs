//! The control plane of one of the client's connections. A ConnectionActor may use many streams, one after the other.
//!
//! It takes orders, and [`converse`] does the talking, in the actor's own context. Both hold the [`Record`]. When
//! both have let go, the stream is closed and logged and the `Stopped` is sent, also after a panic of either.

use crate::{
    client::{
        connect::Connect,
        order::Order,
        record::Record,
        session::{Plan, converse},
    },
    context::{self, Live, OneFuture},
    decisions::stop::Stop,
};
use actix::prelude::*;
use std::rc::Rc;

/// The actor of one of the client's connections.
pub(crate) struct ConnectionActor {
    order: Rc<Order>,
    /// Its end is told when the actor, too, has let go of it.
    _record: Rc<Record>,
}

impl ConnectionActor {
    pub fn start<C: Connect>(plan: Rc<Plan>, server: Rc<C>, record: Record) -> Addr<Self> {
        let (record, order) = (Rc::new(record), Rc::new(Order::default()));
        let conversation = converse(plan, server, order.clone(), record.clone());
        context::start(Self { order, _record: record }, conversation)
    }
}

impl Actor for ConnectionActor {
    type Context = OneFuture<Self>;
}

impl Live<()> for ConnectionActor {
    /// The session has told its record.
    fn end(&mut self, (): ()) {}
}

impl Handler<Stop> for ConnectionActor {
    type Result = ();

    fn handle(&mut self, stop: Stop, _: &mut Self::Context) {
        self.order.give(stop);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{
        record::End,
        testing::{Heard, expect_end, plan, receive, record, scripted, traffic},
    };
    use std::{io, net::SocketAddr};
    use tokio::{
        io::{AsyncWriteExt, DuplexStream},
        time::Instant,
    };

    /// Panics when it is connected to.
    struct Trap;

    impl Connect for Trap {
        type Stream = DuplexStream;

        async fn connect(
            &self,
            _: Instant,
            _: impl FnMut(SocketAddr, &io::Error),
        ) -> io::Result<(DuplexStream, SocketAddr)> {
            panic!("told to")
        }
    }

    /// Makes the actor itself panic.
    #[derive(Message)]
    #[rtype(result = "()")]
    struct Panic;

    impl Handler<Panic> for ConnectionActor {
        type Result = ();

        fn handle(&mut self, _: Panic, _: &mut Self::Context) {
            panic!("told to");
        }
    }

    fn call<C: Connect>(messages: u64, server: Rc<C>) -> (Addr<ConnectionActor>, Heard) {
        let (record, heard) = record(&traffic(1));
        (ConnectionActor::start(plan(traffic(messages)).into(), server, record), heard)
    }

    #[actix::test]
    async fn a_caller_that_has_sent_everything_acknowledges_once() {
        let (server, mut clients) = scripted();
        let (_actor, mut heard) = call(2, server);
        expect_end(clients.echo(2).await).await;
        assert_eq!(heard.end().await, End::Finished);
        assert_eq!(heard.counts(), [2, 0, 0, 0]);
    }

    #[actix::test]
    async fn a_stop_lets_the_outstanding_echo_come_and_sends_nothing_more() {
        let (server, mut clients) = scripted();
        let (actor, mut heard) = call(2, server);
        let mut stream = clients.accept().await;
        let message = receive(&mut stream).await;
        actor.send(Stop::Drain).await.unwrap();
        stream.write_all(message.as_bytes()).await.unwrap();
        expect_end(stream).await;
        assert_eq!(heard.end().await, End::Stopped);
        assert_eq!(heard.counts(), [1, 0, 0, 0]);
    }

    #[actix::test]
    async fn a_stop_is_acknowledged_once_however_often_it_comes() {
        let (server, mut clients) = scripted();
        let (actor, mut heard) = call(0, server);
        let stream = clients.echo(1).await;
        for stop in [Stop::Accepting, Stop::Drain, Stop::Finish, Stop::Drain] {
            actor.do_send(stop);
        }
        drop(stream);
        assert_eq!(heard.end().await, End::Stopped);
    }

    #[actix::test]
    async fn an_order_to_stop_accepting_stops_no_caller() {
        let (server, mut clients) = scripted();
        let (actor, mut heard) = call(1, server);
        actor.do_send(Stop::Accepting);
        expect_end(clients.echo(1).await).await;
        assert_eq!(heard.end().await, End::Finished);
    }

    #[actix::test]
    async fn an_abort_gives_the_outstanding_echo_up_at_once() {
        let (server, mut clients) = scripted();
        let (actor, mut heard) = call(1, server);
        let mut stream = clients.accept().await;
        receive(&mut stream).await;
        actor.do_send(Stop::Drain);
        actor.do_send(Stop::Abort);
        assert_eq!(heard.end().await, End::Forced);
        expect_end(stream).await;
        assert_eq!(heard.counts(), [0, 0, 0, 1]);
        assert_eq!(heard.events(), ["connected", "echo given up", "connection closed"]);
    }

    #[actix::test]
    async fn a_stop_before_the_first_connection_is_acknowledged() {
        let (server, _clients) = scripted();
        server.refusals.set(u32::MAX);
        let (actor, mut heard) = call(1, server);
        actor.do_send(Stop::Drain);
        assert_eq!(heard.end().await, End::Stopped);
        assert_eq!(heard.events(), ["connect failed"; 0]);
    }

    #[actix::test]
    async fn a_panic_while_talking_is_acknowledged_as_a_crash() {
        let (_actor, mut heard) = call(1, Trap.into());
        assert_eq!(heard.end().await, End::Crashed);
        assert_eq!(heard.events(), ["connection crashed"]);
    }

    #[actix::test]
    async fn an_actor_that_panics_closes_its_stream_and_acknowledges() {
        let (server, mut clients) = scripted();
        let (actor, mut heard) = call(0, server);
        let stream = clients.echo(1).await;
        assert!(actor.send(Panic).await.is_err());
        assert_eq!(heard.end().await, End::Crashed);
        drop(stream);
        let events = heard.events();
        assert!(events.ends_with(&["connection closed".into(), "connection crashed".into()]), "{events:?}");
    }
}
