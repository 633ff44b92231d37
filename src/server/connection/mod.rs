//! The control plane of one client: waiting → serving → draining → closed.
//!
//! The actor takes orders and acknowledges. The bytes move in [`converse`], ordinary async code that the actor's context
//! polls beside the mailbox, so the mailbox stays open while the client does anything or nothing. Both hold the [`Stream`].
//! When both have let go, the stream is closed, the end is logged and the `Stopped` is sent, in this order. A panic of
//! either changes nothing in that.

mod close;
pub(crate) mod halves;
mod header;
mod idle;
mod kernel;
pub(crate) mod record;
pub(crate) mod socket;
mod stream;

use crate::{
    context::{self, Live, OneFuture},
    decisions::{
        admission::Place,
        connection::{CloseReason, ConnectionState},
        stop::Stop,
    },
    server::{
        connection::{
            close::{deliver, lingering_close},
            header::take_header,
            record::Record,
            socket::Socket,
            stream::Stream,
        },
        service::{AtStop, Service},
        watch::tree::ConnectionView,
    },
};
use actix::{WeakAddr, prelude::*};
use futures_util::FutureExt;
use idle::watch_idle;
use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    rc::{Rc, Weak},
    sync::Arc,
    thread,
};
use tokio::{net::TcpStream, time::sleep};

/// The actor of one client.
pub(crate) struct ConnectionActor {
    stream: Rc<Stream>,
}

impl ConnectionActor {
    /// Starts the actor of a client with its place; `None` if the client comes from the backlog and is only drained.
    pub fn start<S: Service>(tcp: TcpStream, record: Record, service: Arc<S>, place: Option<Place>) -> Connection {
        let idle_timeout = record.context.settings.idle_timeout;
        let stream = Rc::new(Stream::new(tcp, record, S::AT_STOP == AtStop::Notify, !idle_timeout.is_zero()));
        let expects_header = stream.expects_header();
        if !expects_header {
            announce(&stream, place);
        }
        let arrives = expects_header || place != Some(Place::Served);
        let arrival = arrives.then(|| Box::pin(arrive(stream.clone(), place)));
        let conversation = converse(Socket(stream.clone()), service, arrival);
        // A panic of the service ends here, and with it this connection. What it ended with is for `end`, as each further layer of
        // futures costs every echo its share.
        let conversation = AssertUnwindSafe(conversation).catch_unwind();
        let weak = Rc::downgrade(&stream);
        let actor = if idle_timeout.is_zero() {
            context::start(Self { stream }, conversation)
        } else {
            let watched = stream.clone();
            let watch = Box::pin(watch_idle(stream.clone(), idle_timeout));
            context::start(Self { stream }, async move {
                tokio::select! {
                    biased;
                    reason = conversation => reason,
                    () = watch => Ok(watched.state().reason()),
                }
            })
        };
        Connection { actor: actor.downgrade(), stream: weak }
    }
}

impl Actor for ConnectionActor {
    type Context = OneFuture<Self>;
}

impl Live<thread::Result<CloseReason>> for ConnectionActor {
    fn end(&mut self, ended: thread::Result<CloseReason>) {
        self.stream.record.reason.set(ended.unwrap_or(CloseReason::Crashed));
    }

    fn may_have_mail(&self) -> bool {
        self.stream.mail.take()
    }
}

impl Handler<Stop> for ConnectionActor {
    type Result = ();

    fn handle(&mut self, stop: Stop, ctx: &mut Self::Context) {
        match stop {
            Stop::Accepting => {}
            Stop::Drain | Stop::Finish => {
                if let Some(time) = self.stream.stop() {
                    let stream = Rc::downgrade(&self.stream);
                    actix_rt::spawn(async move {
                        sleep(time).await;
                        stream.upgrade().iter().for_each(|stream| stream.end_last_word());
                    });
                }
            }
            Stop::Abort => {
                self.end(Ok(CloseReason::Forced));
                ctx.stop();
            }
        }
    }
}

/// Worker to one of its connections: end, because your client has vanished.
#[derive(Message)]
#[rtype(result = "()")]
struct ClientGone;

impl Handler<ClientGone> for ConnectionActor {
    type Result = ();

    fn handle(&mut self, _: ClientGone, ctx: &mut Self::Context) {
        let failing = self.stream.state() == ConnectionState::Failing;
        self.end(Ok(if failing { CloseReason::Failed } else { CloseReason::Reset }));
        ctx.stop();
    }
}

/// How a Worker reaches one of its connections. The reference is weak: the data plane keeps the actor alive, and an `Addr`
/// costs 120 bytes.
#[derive(Clone)]
pub(crate) struct Connection {
    actor: WeakAddr<ConnectionActor>,
    stream: Weak<Stream>,
}

impl Connection {
    /// Its address, for one message that is sent at once: the connection looks into its mailbox at its next turn. `None` if it is gone.
    fn actor(&self) -> Option<Addr<ConnectionActor>> {
        self.stream.upgrade()?.mail.set(true);
        self.actor.upgrade()
    }

    /// Sends it an order. If the connection is gone, its `Stopped` is already in the Worker's mailbox.
    pub fn tell(&self, stop: Stop) {
        self.actor().into_iter().for_each(|actor| actor.do_send(stop));
    }

    /// What a listing says of it.
    pub fn view(&self) -> Option<ConnectionView> {
        self.stream.upgrade()?.record.view()
    }

    /// Ends it if its client has vanished.
    pub fn look(&self) {
        if self.stream.upgrade().is_some_and(|stream| stream.client_is_gone()) {
            self.actor().into_iter().for_each(|actor| actor.do_send(ClientGone));
        }
    }
}

/// Tells of a connection that waits for a slot.
fn announce(stream: &Stream, place: Option<Place>) {
    if let Some(Place::Waiting(pending)) = place
        && stream.state() == ConnectionState::Waiting
    {
        stream.record.wait(pending);
    }
}

/// The data plane, from the first byte to the last.
///
/// The arrival and the lingering close are boxed. Kept in place, the larger of them would take its room in
/// every connection from start to end (0.4 KB of memory per idle connection).
#[expect(
    clippy::manual_async_fn,
    reason = "it would keep its arguments twice, and the task of each connection take 384 bytes instead of 256"
)]
fn converse<S: Service>(
    mut socket: Socket,
    service: Arc<S>,
    arrival: Option<Pin<Box<impl Future<Output = Option<CloseReason>>>>>,
) -> impl Future<Output = CloseReason> {
    async move {
        if let Some(arrival) = arrival
            && let Some(reason) = arrival.await
        {
            return reason;
        }
        socket.0.serve();
        let served = service.serve(&mut socket).await;
        let stream = &socket.0;
        match served {
            Ok(()) => match Box::pin(lingering_close(stream)).await {
                Ok(()) => stream.state().reason(),
                Err(_) => CloseReason::Reset,
            },
            // The client failed first.
            Err(_) if stream.is_broken() => CloseReason::Reset,
            Err(error) => {
                stream.fail(error);
                // If the delivery fails too, the service still failed first.
                let _ = Box::pin(deliver(stream)).await;
                stream.state().reason()
            }
        }
    }
}

/// All that comes before the service: the PROXY header, then the wait for a slot. Gives the close reason if the service is not to
/// begin.
async fn arrive(stream: Rc<Stream>, place: Option<Place>) -> Option<CloseReason> {
    if stream.expects_header() {
        if let Some(reason) = take_header(&stream).await {
            return Some(reason);
        }
        announce(&stream, place);
    }
    if place == Some(Place::Served) { None } else { wait(&stream).await }
}

/// Waits for a slot, or for a stop, after which the connection is drained. Gives the close reason if the client goes first.
async fn wait(stream: &Stream) -> Option<CloseReason> {
    tokio::select! {
        biased;
        () = stream.becomes(|state| state.ending().is_some()) => None,
        () = stream.record.permit.served() => None,
        reason = stream.gone() => {
            // A client that has only ended its input may still listen. It is owed nothing but a clean end.
            let earned = reason == CloseReason::Client && stream.earned_clean_end().is_ok();
            Some(if earned { CloseReason::Client } else { CloseReason::Reset })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{buffer::BUFFER, server::messages::ConnectionStopped, settings::FaultSettings};

    use std::{
        future::{self, pending},
        pin::pin,
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use crate::server::{
        echo::Echo,
        fault::FaultyEcho,
        gate::Gate,
        testing::{connection, context, record, record_at},
    };
    use rustix::io::ioctl_fionread;
    use slog::{Discard, Logger, o};
    use socket2::SockRef;
    use std::io;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    };

    const NEVER: Duration = Duration::ZERO;

    /// Panics on `!`, fails on `?`, ends on `.`, hangs on `~`, and otherwise echoes byte for byte.
    struct Moody;

    impl Service for Moody {
        async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
            let mut byte = [0];
            while socket.read(&mut byte).await? > 0 {
                match byte[0] {
                    b'!' => panic!("told to"),
                    b'?' => return Err(io::ErrorKind::InvalidData.into()),
                    b'.' => return Ok(()),
                    b'~' => pending().await,
                    _ => socket.write_all(&byte).await?,
                }
            }
            Ok(())
        }
    }

    /// On the first byte it writes a long answer and fails.
    struct Failing;

    impl Failing {
        const ANSWER: usize = 300_000;
    }

    impl Service for Failing {
        async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
            socket.read_u8().await?;
            socket.write_all(&vec![1; Self::ANSWER]).await?;
            Err(io::ErrorKind::InvalidData.into())
        }
    }

    fn reset(client: TcpStream) {
        client.set_zero_linger().expect("it is a socket");
    }

    /// Both ends of a connection on which the server's system takes a long answer and the client's does not.
    async fn narrow() -> (TcpStream, TcpStream) {
        let (stream, client) = connection().await;
        SockRef::from(&stream).set_send_buffer_size(512 << 10).unwrap();
        SockRef::from(&client).set_recv_buffer_size(32 << 10).unwrap();
        (stream, client)
    }

    /// Makes the actor itself panic, and not the service.
    #[derive(Message)]
    #[rtype(result = "()")]
    struct Panic;

    impl Handler<Panic> for ConnectionActor {
        type Result = ();

        fn handle(&mut self, _: Panic, _: &mut Self::Context) {
            panic!("told to");
        }
    }

    impl Connection {
        fn send<M>(&self, message: M) -> Request<ConnectionActor, M>
        where
            M: Message<Result: Send> + Send + 'static,
            ConnectionActor: Handler<M>,
        {
            self.actor().expect("it is there").send(message)
        }
    }

    type Heard = UnboundedReceiver<ConnectionStopped>;

    async fn served<S: Service>(service: S) -> (Connection, TcpStream, Heard) {
        let (stream, client) = connection().await;
        let (context, heard) = context(NEVER);
        let actor = ConnectionActor::start(stream, record(context), service.into(), Some(Place::Served));
        (actor, client, heard)
    }

    /// One connection with the only slot, and one that waits for it; each with its client.
    async fn served_and_waiting() -> ([(Connection, TcpStream); 2], Heard) {
        let gate = Gate::new(1, 1, 1);
        let (context, heard) = context(NEVER);
        let mut actors = Vec::new();
        for place in [Place::Served, Place::Waiting(1)] {
            let (stream, client) = connection().await;
            let record = record_at(&gate, context.clone());
            actors.push((ConnectionActor::start(stream, record, Echo.into(), Some(place)), client));
        }
        let Ok(actors) = actors.try_into() else { unreachable!("there are two") };
        (actors, heard)
    }

    async fn reason(heard: &mut Heard) -> CloseReason {
        heard.recv().await.expect("every connection acknowledges").0.reason
    }

    /// Checks that the acknowledgement was the last message: no actor is left to send another.
    async fn and_no_more(mut heard: Heard) {
        heard.close();
        assert!(heard.recv().await.is_none());
    }

    async fn all(client: &mut TcpStream) -> io::Result<String> {
        let mut bytes = String::new();
        client.read_to_string(&mut bytes).await.map(|_| bytes)
    }

    fn is_reset<T: std::fmt::Debug>(read: io::Result<T>) -> bool {
        read.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
    }

    #[actix::test]
    async fn a_client_that_ends_gets_its_echo_then_eof_and_is_acknowledged_once() {
        let (_, mut client, mut heard) = served(Echo).await;
        client.write_all(b"hello").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(all(&mut client).await.unwrap(), "hello");
        assert_eq!(reason(&mut heard).await, CloseReason::Client);
        and_no_more(heard).await;
    }

    #[actix::test]
    async fn a_stop_echoes_what_has_arrived_then_ends_cleanly() {
        let (actor, mut client, mut heard) = served(Echo).await;
        client.write_all(b"hello").await.unwrap();
        actor.tell(Stop::Drain);
        assert_eq!(all(&mut client).await.unwrap(), "hello");
        drop(client);
        assert_eq!(reason(&mut heard).await, CloseReason::Stopped);
        and_no_more(heard).await;
    }

    #[actix::test]
    async fn what_comes_after_the_stop_is_not_echoed() {
        let (actor, mut client, mut heard) = served(Echo).await;
        client.write_all(b"before").await.unwrap();
        actor.send(Stop::Drain).await.unwrap();
        client.write_all(b"after").await.unwrap();
        assert_eq!(all(&mut client).await.unwrap(), "before");
        client.shutdown().await.unwrap();
        assert_eq!(reason(&mut heard).await, CloseReason::Stopped);
    }

    #[actix::test]
    async fn a_stop_is_acknowledged_once_however_often_it_comes() {
        let (actor, client, mut heard) = served(Echo).await;
        actor.tell(Stop::Drain);
        actor.tell(Stop::Finish);
        actor.tell(Stop::Drain);
        drop(client);
        assert_eq!(reason(&mut heard).await, CloseReason::Stopped);
        and_no_more(heard).await;
    }

    #[actix::test]
    async fn an_abort_resets_the_client_and_counts_as_forced() {
        let (actor, mut client, mut heard) = served(Echo).await;
        actor.tell(Stop::Drain);
        actor.tell(Stop::Abort);
        assert_eq!(reason(&mut heard).await, CloseReason::Forced);
        assert!(is_reset(all(&mut client).await));
        and_no_more(heard).await;
    }

    #[actix::test]
    async fn a_service_that_panics_resets_its_client_frees_its_slot_and_is_reported() {
        let (stream, mut client) = connection().await;
        let (context, mut heard) = context(NEVER);
        let gate = Gate::new(1, 0, 1);
        let record = record_at(&gate, context);
        ConnectionActor::start(stream, record, Moody.into(), Some(Place::Served));
        client.write_all(b"!").await.unwrap();
        assert!(is_reset(all(&mut client).await));
        assert_eq!(reason(&mut heard).await, CloseReason::Crashed);
        assert_eq!(gate.alive(crate::server::testing::WORKER), 0);
    }

    #[actix::test]
    async fn a_service_that_panics_during_a_drain_is_reported_as_crashed_from_the_queue_and_the_backlog_too() {
        for place in [Some(Place::Served), Some(Place::Waiting(1)), None] {
            let (stream, mut client) = connection().await;
            let (context, mut heard) = context(NEVER);
            let actor = ConnectionActor::start(stream, record(context), Moody.into(), place);
            client.write_all(b"!").await.unwrap();
            actor.tell(Stop::Drain);
            assert!(is_reset(all(&mut client).await));
            assert_eq!(reason(&mut heard).await, CloseReason::Crashed);
            and_no_more(heard).await;
        }
    }

    #[actix::test]
    async fn an_actor_that_panics_in_any_state_resets_its_client_alone_and_acknowledges_once() {
        // Whether it waits for a slot, what the client says, whether it is told to stop, and what the client has heard by
        // then.
        for (state, waits, says, stopped, hears) in [
            ("waiting", true, "~", false, ""),
            ("draining from the queue", true, "a~", true, "a"),
            ("serving", false, "a~", false, "a"),
            ("draining", false, "a~", true, "a"),
            ("lingering close to one that is done", false, "a.", false, "a"),
            ("lingering close to one that is done, and then a stop", false, "a.", true, "a"),
            ("lingering close at a stop", false, "a", true, "a"),
        ] {
            let gate = if waits { Gate::new(1, 1, 1) } else { Gate::new(2, 0, 1) };
            let (context, mut heard) = context(NEVER);
            let (stream, mut other) = connection().await;
            let record = record_at(&gate, context.clone());
            ConnectionActor::start(stream, record, Moody.into(), Some(Place::Served));
            let (stream, mut client) = connection().await;
            let record = record_at(&gate, context);
            let place = if waits { Place::Waiting(1) } else { Place::Served };
            let actor = ConnectionActor::start(stream, record, Moody.into(), Some(place));

            client.write_all(says.as_bytes()).await.unwrap();
            let order = if stopped { Stop::Drain } else { Stop::Accepting };
            if waits {
                actor.send(order).await.unwrap();
            }
            let mut heard_by_client = vec![0; hears.len()];
            client.read_exact(&mut heard_by_client).await.unwrap();
            assert_eq!(heard_by_client, hears.as_bytes(), "{state}");
            if !waits {
                actor.send(order).await.unwrap();
            }
            if state.starts_with("lingering close") {
                assert_eq!(all(&mut client).await.unwrap(), "", "{state}");
            }
            assert!(actor.send(Panic).await.is_err());
            assert_eq!(reason(&mut heard).await, CloseReason::Crashed, "{state}");
            // A socket that was closed without a reset would take this.
            assert!(client.write_all(b"?").await.is_err(), "{state}");
            assert_eq!((gate.alive(crate::server::testing::WORKER), gate.tally().crashed), (1, 1), "{state}");

            other.write_all(b"a.").await.unwrap();
            assert_eq!(all(&mut other).await.unwrap(), "a", "{state}");
            drop(other);
            assert_eq!(reason(&mut heard).await, CloseReason::Client, "{state}");
            and_no_more(heard).await;
        }
    }

    #[actix::test]
    async fn what_a_service_wrote_before_it_failed_is_delivered_and_then_comes_a_reset() {
        let (stream, mut client) = narrow().await;
        let (context, mut heard) = context(NEVER);
        let actor = ConnectionActor::start(stream, record(context), Failing.into(), Some(Place::Served));
        // The answer is larger than both systems hold, and an order to drain takes nothing of it away.
        client.write_all(b"?").await.unwrap();
        actor.send(Stop::Drain).await.unwrap();
        let mut answer = vec![0; Failing::ANSWER];
        client.read_exact(&mut answer).await.unwrap();
        assert!(is_reset(client.read(&mut answer).await));
        assert_eq!(reason(&mut heard).await, CloseReason::Failed);
        and_no_more(heard).await;
    }

    #[actix::test]
    async fn a_failed_service_whose_client_sends_everything_before_it_reads_lets_go() {
        let (stream, mut client) = narrow().await;
        let (context, mut heard) = context(NEVER);
        ConnectionActor::start(stream, record(context), Failing.into(), Some(Place::Served));
        client.write_all(&vec![1; 20_000_000]).await.unwrap();
        let mut answer = vec![0; Failing::ANSWER];
        client.read_exact(&mut answer).await.unwrap();
        assert!(is_reset(client.read(&mut answer).await));
        assert_eq!(reason(&mut heard).await, CloseReason::Failed);
    }

    #[actix::test]
    async fn a_failed_service_whose_client_resets_or_is_aborted_lets_go() {
        for abort in [false, true] {
            let (stream, mut client) = narrow().await;
            let (context, mut heard) = context(NEVER);
            let actor = ConnectionActor::start(stream, record(context), Failing.into(), Some(Place::Served));
            client.write_all(b"?").await.unwrap();
            client.read_u8().await.unwrap();
            if abort {
                actor.tell(Stop::Abort);
            } else {
                reset(client);
            }
            assert_eq!(reason(&mut heard).await, if abort { CloseReason::Forced } else { CloseReason::Failed });
        }
    }

    #[actix::test]
    async fn a_failed_service_whose_client_reads_nothing_is_given_up_when_it_is_idle() {
        let (stream, mut client) = narrow().await;
        let (context, mut heard) = context(Duration::from_millis(20));
        ConnectionActor::start(stream, record(context), Failing.into(), Some(Place::Served));
        client.write_all(b"?").await.unwrap();
        assert_eq!(reason(&mut heard).await, CloseReason::Failed);
    }

    #[actix::test]
    async fn a_client_that_falls_silent_after_a_full_buffer_is_idle() {
        let (stream, mut client) = connection().await;
        client.write_all(&[1; BUFFER]).await.unwrap();
        while ioctl_fionread(&stream).unwrap() < BUFFER as u64 {
            stream.ready(tokio::io::Interest::READABLE).await.unwrap();
        }
        let (context, mut heard) = context(Duration::from_millis(20));
        ConnectionActor::start(stream, record(context), Echo.into(), Some(Place::Served));
        client.read_exact(&mut [0; BUFFER]).await.unwrap();
        assert_eq!(all(&mut client).await.unwrap(), "");
        drop(client);
        assert_eq!(reason(&mut heard).await, CloseReason::Idle);
    }

    #[actix::test]
    async fn a_client_that_is_killed_after_its_fin_with_its_echo_unread_gives_its_slot_back() {
        let (stream, mut client) = narrow().await;
        let (context, mut heard) = context(NEVER);
        let _actor = ConnectionActor::start(stream, record(context), Echo.into(), Some(Place::Served));
        client.write_all(&[1; 200_000]).await.unwrap();
        client.shutdown().await.unwrap();
        client.read_u8().await.unwrap();
        drop(client); // with bytes unread: its system resets the connection
        assert_eq!(reason(&mut heard).await, CloseReason::Reset);
    }

    /// It is only notified. On a byte it waits for the end and then says goodbye; on FIN it ends.
    struct Polite;

    impl Service for Polite {
        const AT_STOP: AtStop = AtStop::Notify;

        async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
            let mut byte = [0];
            let stopping = socket.stopping();
            tokio::select! {
                biased;
                read = socket.read(&mut byte) => if read? == 0 { return Ok(()) },
                () = stopping => {}
            }
            socket.stopping().await;
            assert!(socket.ending().is_some());
            // The input is still open.
            socket.read_exact(&mut byte).await?;
            socket.write_all(&byte).await
        }
    }

    #[actix::test]
    async fn a_service_that_is_notified_keeps_its_input_and_finishes_what_it_is_at() {
        for first in ["", "a"] {
            let (actor, mut client, mut heard) = served(Polite).await;
            client.write_all(first.as_bytes()).await.unwrap();
            actor.send(Stop::Drain).await.unwrap();
            client.write_all(b"b").await.unwrap();
            assert_eq!(all(&mut client).await.unwrap(), "b");
            drop(client);
            assert_eq!(reason(&mut heard).await, CloseReason::Stopped);
        }
    }

    /// It is only notified. It reads, and counts what it has read.
    struct Sink(Arc<AtomicUsize>);

    impl Service for Sink {
        const AT_STOP: AtStop = AtStop::Notify;

        async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
            let mut stopping = pin!(socket.stopping());
            let mut bytes = [0; 4096];
            loop {
                tokio::select! {
                    biased;
                    read = socket.read(&mut bytes) => match read? {
                        0 => return Ok(()),
                        n => self.0.fetch_add(n, Ordering::Relaxed),
                    },
                    () = &mut stopping => return Ok(()),
                };
            }
        }
    }

    #[actix::test]
    async fn a_service_that_is_notified_hears_of_the_stop_though_its_client_has_more_to_send_all_the_time() {
        let (stream, mut client) = connection().await;
        SockRef::from(&stream).set_recv_buffer_size(512 << 10).unwrap();
        SockRef::from(&client).set_send_buffer_size(4 << 20).unwrap();
        let mut sent = 0;
        while let Ok(n) = client.try_write(&[1; 4096]) {
            sent += n;
        }
        let arrived = ioctl_fionread(&stream).unwrap() as usize;
        let (context, mut heard) = context(NEVER);
        let read = Arc::new(AtomicUsize::new(0));
        let actor = ConnectionActor::start(stream, record(context), Sink(read.clone()).into(), Some(Place::Served));
        actor.tell(Stop::Drain);
        assert_eq!(all(&mut client).await.unwrap(), "");
        assert!((arrived..sent).contains(&read.load(Ordering::Relaxed)), "{read:?} of {arrived} and then {sent}");
        drop(client);
        assert_eq!(reason(&mut heard).await, CloseReason::Stopped);
    }

    #[actix::test]
    async fn a_service_that_is_idle_is_notified_and_then_given_up_but_one_at_work_is_not_idle() {
        let (context, mut heard) = context(Duration::from_millis(20));
        let (stream, mut client) = connection().await;
        ConnectionActor::start(stream, record(context.clone()), Polite.into(), Some(Place::Served));
        // The client has said nothing. The service is told to end, waits for its client again, and the client still says
        // nothing.
        assert!(is_reset(all(&mut client).await));
        assert_eq!(reason(&mut heard).await, CloseReason::Idle);

        // This service waits for its own stop and not for its client. The other one is idle first.
        let [(stream, mut at_work), (other, mut idle)] = [connection().await, connection().await];
        let actor = ConnectionActor::start(stream, record(context.clone()), Polite.into(), Some(Place::Served));
        at_work.write_all(b"a").await.unwrap();
        ConnectionActor::start(other, record(context), Echo.into(), Some(Place::Served));
        assert_eq!(all(&mut idle).await.unwrap(), "");
        drop(idle);
        assert_eq!(reason(&mut heard).await, CloseReason::Idle);
        actor.tell(Stop::Drain);
        at_work.write_all(b"b").await.unwrap();
        assert_eq!(all(&mut at_work).await.unwrap(), "b");
    }

    #[actix::test]
    async fn a_task_that_waits_for_the_stop_of_a_connection_hears_of_its_end() {
        struct Leaves(UnboundedSender<()>);
        impl Service for Leaves {
            async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
                let (stopping, ended) = (socket.stopping(), self.0.clone());
                actix_rt::spawn(async move {
                    stopping.await;
                    let _ = ended.send(());
                });
                Ok(())
            }
        }
        let (ended, mut hears) = unbounded_channel();
        let (_, client, mut heard) = served(Leaves(ended)).await;
        drop(client);
        assert_eq!(reason(&mut heard).await, CloseReason::Client);
        assert_eq!(hears.recv().await, Some(()));
    }

    #[actix::test]
    async fn a_service_that_sends_fin_goes_on_reading() {
        struct HalfClose;
        impl Service for HalfClose {
            async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
                socket.write_all(b"done").await?;
                socket.shutdown().await?;
                let mut rest = String::new();
                socket.read_to_string(&mut rest).await?;
                assert_eq!(rest, "but I am not");
                Ok(())
            }
        }
        let (_, mut client, mut heard) = served(HalfClose).await;
        assert_eq!(all(&mut client).await.unwrap(), "done");
        client.write_all(b"but I am not").await.unwrap();
        drop(client);
        assert_eq!(reason(&mut heard).await, CloseReason::Client);
    }

    #[actix::test]
    async fn a_service_that_is_done_first_ends_cleanly_though_its_client_sends_on() {
        let (_, mut client, mut heard) = served(Moody).await;
        client.write_all(b"a.bc").await.unwrap();
        assert_eq!(all(&mut client).await.unwrap(), "a");
        drop(client);
        assert_eq!(reason(&mut heard).await, CloseReason::Client);
    }

    #[actix::test]
    async fn the_task_of_a_connection_has_256_bytes_also_with_an_echo_that_could_lie() {
        async fn size<S: Service>(service: S) -> usize {
            let stream = Stream::new(connection().await.0, record(context(NEVER).0), false, false);
            let arrival: Option<Pin<Box<future::Ready<_>>>> = None;
            size_of_val(&converse(Socket(Rc::new(stream)), Arc::new(service), arrival))
        }
        let faulty = FaultyEcho::new(&FaultSettings::default(), Logger::root(Discard, o!()));
        // The actor and tokio's own part take the rest. With one word more the task would take 384 bytes.
        assert!(size(Echo).await <= 120);
        assert!(size(faulty).await <= 120);
    }

    #[actix::test]
    async fn a_client_that_resets_is_reported_as_reset() {
        let (_, client, mut heard) = served(Echo).await;
        client.set_zero_linger().unwrap();
        drop(client);
        assert_eq!(reason(&mut heard).await, CloseReason::Reset);
    }

    #[actix::test]
    async fn a_waiter_is_served_when_the_slot_is_freed() {
        let ([(_, first), (_, mut second)], mut heard) = served_and_waiting().await;
        second.write_all(b"hello").await.unwrap();
        drop(first);
        assert_eq!(reason(&mut heard).await, CloseReason::Client);
        let mut bytes = [0; 5];
        second.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"hello");
    }

    #[actix::test]
    async fn a_waiter_that_is_stopped_gets_what_it_is_owed() {
        let ([_first, (actor, mut client)], mut heard) = served_and_waiting().await;
        client.write_all(b"hello").await.unwrap();
        actor.tell(Stop::Drain);
        assert_eq!(all(&mut client).await.unwrap(), "hello");
        drop(client);
        assert_eq!(reason(&mut heard).await, CloseReason::Stopped);
    }

    #[actix::test]
    async fn a_waiter_that_ends_its_input_without_a_word_gets_a_clean_end_and_gives_its_place_back() {
        let ([_first, (_, mut client)], mut heard) = served_and_waiting().await;
        client.shutdown().await.unwrap();
        assert_eq!(all(&mut client).await.unwrap(), "");
        assert_eq!(reason(&mut heard).await, CloseReason::Client);
    }

    #[actix::test]
    async fn a_waiter_that_goes_without_a_word_gives_its_place_back() {
        let ([_first, (_, client)], mut heard) = served_and_waiting().await;
        drop(client);
        assert_eq!(reason(&mut heard).await, CloseReason::Client);
    }

    #[actix::test]
    async fn a_waiter_that_resets_gives_its_place_back() {
        let ([_first, (_, mut client)], mut heard) = served_and_waiting().await;
        client.write_all(b"hello").await.unwrap();
        client.set_zero_linger().unwrap();
        drop(client);
        assert_eq!(reason(&mut heard).await, CloseReason::Reset);
    }

    #[actix::test]
    async fn a_waiter_that_has_ended_its_input_keeps_its_place() {
        let ([(_, first), (_, mut second)], mut heard) = served_and_waiting().await;
        second.write_all(b"hello").await.unwrap();
        second.shutdown().await.unwrap();
        drop(first);
        assert_eq!(all(&mut second).await.unwrap(), "hello");
        assert_eq!((reason(&mut heard).await, reason(&mut heard).await), (CloseReason::Client, CloseReason::Client));
    }

    #[actix::test]
    async fn an_idle_client_is_ended_cleanly() {
        let (stream, mut client) = connection().await;
        let (context, mut heard) = context(Duration::from_millis(20));
        ConnectionActor::start(stream, record(context), Echo.into(), Some(Place::Served));
        assert_eq!(all(&mut client).await.unwrap(), "");
        drop(client);
        assert_eq!(reason(&mut heard).await, CloseReason::Idle);
    }

    #[actix::test]
    async fn an_idle_timeout_that_is_over_at_once_leaves_the_thread_to_others() {
        let (stream, client) = connection().await;
        let (context, mut heard) = context(Duration::from_nanos(1));
        ConnectionActor::start(stream, record(context), Echo.into(), Some(Place::Served));
        client.readable().await.unwrap();
        drop(client);
        assert_eq!(reason(&mut heard).await, CloseReason::Idle);
    }

    #[actix::test]
    async fn an_idle_client_that_owes_its_reading_is_given_up() {
        let (stream, mut client) = connection().await;
        let (context, mut heard) = context(Duration::from_millis(20));
        ConnectionActor::start(stream, record(context), Echo.into(), Some(Place::Served));
        // The answer is larger than the socket buffers of both sides, so the write ends only with the connection.
        assert!(client.write_all(&vec![0; 64 << 20]).await.is_err());
        assert_eq!(reason(&mut heard).await, CloseReason::Idle);
    }

    #[actix::test]
    async fn a_client_that_reads_slowly_is_not_idle() {
        let (stream, client) = connection().await;
        // The whole answer fits into the server's send queue. Soon only the client's reading moves any byte.
        SockRef::from(&stream).set_send_buffer_size(512 << 10).unwrap();
        SockRef::from(&client).set_recv_buffer_size(32 << 10).unwrap();
        let (context, mut heard) = context(Duration::from_millis(500));
        ConnectionActor::start(stream, record(context), Echo.into(), Some(Place::Served));
        let (mut reader, mut writer) = client.into_split();
        let sent = vec![7; 320 << 10];
        let mut received = Vec::new();
        let write = async {
            writer.write_all(&sent).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let read = async {
            let mut piece = [0; 16 << 10];
            loop {
                match reader.read(&mut piece).await.unwrap() {
                    0 => break,
                    n => received.extend_from_slice(&piece[..n]),
                }
                // The pace of the client is what the test is about.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::join!(write, read);
        assert_eq!(received.len(), sent.len());
        assert_eq!(reason(&mut heard).await, CloseReason::Client);
    }

    #[actix::test]
    async fn a_connection_whose_worker_has_panicked_is_forced_not_crashed() {
        let (stream, _client) = connection().await;
        let (context, mut heard) = context(NEVER);
        let record = record(context.clone());
        context.orphaned.set(true);
        drop(record);
        drop(stream);
        assert_eq!(reason(&mut heard).await, CloseReason::Forced);
    }
}
