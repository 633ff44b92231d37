//! One client's stream and what is known of it. The two planes of its connection share it: the actor gives orders, and the
//! service moves bytes. Both run on one thread, so cells are enough.

use crate::{
    buffer::{READS_IN_A_ROW, with_buffer},
    decisions::{
        connection::{CloseReason, ConnectionState, Ending},
        proxy_header::{LONGEST, More, Refusal, Step, decide},
    },
    server::{
        connection::{
            kernel,
            record::{Record, canonical},
        },
        pipe::Pipe,
    },
    settings::ProxyProtocol,
};
use futures_util::FutureExt;
use rustix::{
    io::{Errno, ioctl_fionread},
    net::{RecvFlags, recv},
};
use socket2::SockRef;
use std::{
    cell::{Cell, OnceCell, RefCell},
    future::poll_fn,
    io::{self, ErrorKind, Read},
    net::{Shutdown, SocketAddr},
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};
use tokio::{
    io::{Interest, ReadBuf},
    net::TcpStream,
    sync::Notify,
    time::Instant,
};

pub(crate) struct Stream {
    // Dropped in this order: the stream is closed before its end is logged and acknowledged.
    tcp: TcpStream,
    pub record: Record,
    /// Whether a message may be in the actor's mailbox. Who sends one says so before.
    pub mail: Cell<bool>,
    state: Cell<ConnectionState>,
    /// Whether the service is only notified when the server wants it to end. Then its input stays open.
    notify: bool,
    /// Whether a PROXY header is still to come.
    header: Cell<ProxyProtocol>,
    /// How many of the bytes that had arrived when the service was told to end are still to be read.
    due: Cell<u64>,
    /// Whether reading has paused, so that a notified service sees the stop.
    paused: Cell<bool>,
    /// Whether the client's FIN has been read.
    client_done: Cell<bool>,
    /// Whether the server's own FIN has been sent.
    finished: Cell<bool>,
    /// Whether the client has reset the connection, so that the socket has failed.
    broken: Cell<bool>,
    /// Whether the client was silent at the Worker's last look.
    silent: Cell<bool>,
    /// Whether the service has waited for its client, to send or to read, since the last question.
    waits: Cell<bool>,
    /// Whether to note when a byte moves. Only an idle timeout needs it.
    watch_idle: bool,
    active: Cell<Instant>,
    /// The waker of the task that waits for input. It is woken when the input has ended.
    reader: RefCell<Option<Waker>>,
    /// Rung when the service is to end, when it has ended, and when the connection is over. It is made when a task first
    /// listens.
    bell: OnceCell<Rc<Notify>>,
}

impl Stream {
    pub fn new(tcp: TcpStream, record: Record, notify: bool, watch_idle: bool) -> Self {
        let listen = &record.context.listen;
        let header = match listen.proxy_protocol {
            ProxyProtocol::Optional if !listen.trusts(record.peer().ip()) => ProxyProtocol::Off,
            header => header,
        };
        Self {
            header: Cell::new(header),
            tcp,
            record,
            mail: Cell::new(true),
            state: Cell::new(ConnectionState::Waiting),
            notify,
            due: Cell::new(0),
            paused: Cell::new(false),
            client_done: Cell::new(false),
            finished: Cell::new(false),
            broken: Cell::new(false),
            silent: Cell::new(false),
            waits: Cell::new(false),
            watch_idle,
            active: Cell::new(Instant::now()),
            reader: RefCell::new(None),
            bell: OnceCell::new(),
        }
    }

    /// Watchers hear of a connection when its client's address is known.
    fn set_state(&self, state: ConnectionState) {
        self.state.set(state);
        if !self.expects_header() {
            self.record.show(state);
        }
    }

    // The PROXY header.

    /// Whether a PROXY header may still come.
    pub fn expects_header(&self) -> bool {
        self.header.get() != ProxyProtocol::Off
    }

    /// Resolves when the header is taken away, or none is expected any more. The error within is why the connection is to be reset.
    pub async fn take_header(&self) -> io::Result<Result<(), Refusal>> {
        let mut stopped = false;
        loop {
            let more = tokio::select! {
                biased;
                () = self.becomes(ConnectionState::input_has_ended), if !stopped => More::Stopped,
                ready = self.tcp.ready(Interest::READABLE) => {
                    if ready?.is_read_closed() { More::Ended } else { More::Open }
                }
            };
            let tried = if more == More::Stopped {
                stopped = true;
                self.try_header(more)?
            } else {
                // What has arrived is not enough: that makes the reactor tell of more.
                let tried = self.tcp.try_io(Interest::READABLE, || match self.try_header(more)? {
                    Ok(false) => Err(ErrorKind::WouldBlock.into()),
                    tried => Ok(tried),
                });
                match tried {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    tried => tried?,
                }
            };
            match tried {
                Ok(false) => {}
                tried => return Ok(tried.map(drop)),
            }
        }
    }

    /// Takes the header away if it has arrived. True if none is expected any more.
    pub fn try_header(&self, more: More) -> io::Result<Result<bool, Refusal>> {
        if !self.expects_header() {
            return Ok(Ok(true));
        }
        let required = self.header.get() == ProxyProtocol::Required;
        if required && !self.record.context.listen.trusts(self.record.peer().ip()) {
            return Ok(Err(Refusal::Untrusted));
        }
        with_buffer(|buffer| {
            let buffer = &mut buffer[..LONGEST];
            let n = match recv(&self.tcp, &mut *buffer, RecvFlags::PEEK) {
                Err(Errno::WOULDBLOCK) => 0,
                arrived => arrived?.1,
            };
            Ok(match decide(&buffer[..n], required, more) {
                Ok(Step::Wait) => Ok(false),
                Ok(Step::Serve { length, client }) => {
                    (&*SockRef::from(&self.tcp)).read_exact(&mut buffer[..length])?;
                    self.know_client(length, client);
                    Ok(true)
                }
                Err(refusal) => Err(refusal),
            })
        })
    }

    /// A header of this length has been taken away, and has told of this client.
    fn know_client(&self, length: usize, client: Option<SocketAddr>) {
        self.due.set(self.due.get().saturating_sub(length as u64));
        if let Some(client) = client {
            self.record.peer.set(canonical(client));
        }
        self.header.set(ProxyProtocol::Off);
        if self.state() != ConnectionState::Waiting {
            self.record.show(self.state());
        }
    }

    // Orders.

    /// The server stops. Gives the time for the client's last word, if this begins the wait for it.
    pub fn stop(&self) -> Option<Duration> {
        // A header is nothing that is due. If it is refused, the connection's own task finds that too.
        let _ = self.try_header(More::Open);
        let (time, before) = (self.last_word(), self.state());
        let may_wait = !time.is_zero() && (self.expects_header() || self.arrived() == 0);
        if before.stop(may_wait) != ConnectionState::LastWord {
            self.end_input(Ending::Stopped);
            return None;
        }
        self.set_state(ConnectionState::LastWord);
        self.wake_service();
        (before != ConnectionState::LastWord).then_some(time)
    }

    /// How long a stop waits for a last word. A service that is notified asks its client itself.
    fn last_word(&self) -> Duration {
        if self.notify { Duration::ZERO } else { self.record.context.settings.last_word }
    }

    /// The time for the last word is over.
    pub fn end_last_word(&self) {
        if self.state() == ConnectionState::LastWord {
            self.end_input(Ending::Stopped);
        }
    }

    /// The server wants the service to end. The input ends after what has arrived by now, so a client that keeps sending
    /// cannot keep it open. The input of a service that asked to be notified stays open, but pauses at that point.
    pub fn end_input(&self, ending: Ending) {
        let before = self.state();
        self.set_state(before.end_input(ending));
        if before.input_has_ended() || !self.state().input_has_ended() {
            return;
        }
        if ending == Ending::Stopped && !self.last_word().is_zero() {
            // The last bytes wait for FIN, so that no message of the client comes between them.
            let _ = SockRef::from(&self.tcp).set_tcp_cork(true);
        }
        self.due.set(self.arrived());
        self.wake_service();
    }

    /// Bytes that have arrived and are not read. A socket that cannot tell is broken, and the next read reports it.
    fn arrived(&self) -> u64 {
        ioctl_fionread(&self.tcp).unwrap_or(0)
    }

    fn wake_service(&self) {
        self.reader.take().into_iter().for_each(Waker::wake);
        self.ring();
    }

    fn ring(&self) {
        self.bell.get().into_iter().for_each(|bell| bell.notify_waiters());
    }

    /// Resolves when this holds, and at the latest when the connection is over. It holds the connection weakly.
    pub fn until<F: Fn(&Self) -> bool>(self: &Rc<Self>, is_so: F) -> impl Future<Output = ()> + use<F> {
        let (stream, bell) = (Rc::downgrade(self), self.bell.get_or_init(Rc::default).clone());
        async move {
            loop {
                let rung = bell.notified();
                if stream.upgrade().is_none_or(|stream| is_so(&stream)) {
                    return;
                }
                rung.await;
            }
        }
    }

    pub fn state(&self) -> ConnectionState {
        self.state.get()
    }

    fn input_has_ended(&self) -> bool {
        !self.notify && self.state().input_has_ended()
    }

    fn wake_at_the_end(&self, cx: &Context<'_>) {
        let mut reader = self.reader.borrow_mut();
        match &mut *reader {
            Some(waker) => waker.clone_from(cx.waker()), // does nothing if it is the same
            None => *reader = Some(cx.waker().clone()),
        }
    }

    /// Resolves when the state is such, before the service has begun.
    pub async fn becomes(&self, is_such: impl Fn(ConnectionState) -> bool) {
        poll_fn(|cx| {
            self.wake_at_the_end(cx);
            if is_such(self.state()) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// The connection has its slot. The service begins, unless the connection is only to be drained.
    pub fn serve(&self) {
        self.set_state(self.state().serve());
        if self.state() == ConnectionState::Serving {
            self.touch();
            self.record.log_opened();
        }
    }

    /// Whether the service runs: it has begun and is not over.
    pub fn is_in_service(&self) -> bool {
        use ConnectionState::{Draining, LastWord, Serving};
        matches!(self.state(), Serving | LastWord | Draining(_))
    }

    /// When a byte last moved in either direction, if an idle timeout is set.
    pub fn active(&self) -> Instant {
        self.active.get()
    }

    /// Notes that a byte moves now.
    pub fn touch(&self) {
        if self.watch_idle {
            self.active.set(Instant::now());
        }
    }

    // The data plane.

    /// Ready when `try_read` may give bytes or the end of the input.
    ///
    /// A notified service gets what had arrived at the stop without a wait. Before each later read it has to wait once. So
    /// a service that prefers reading still sees the stop after what had arrived, even if its client never pauses.
    #[inline(always)] // 21 instructions less for each echo
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.due.get() > 0 || self.input_has_ended() {
            return Poll::Ready(Ok(()));
        }
        self.wake_at_the_end(cx);
        if self.state().input_has_ended() && !self.paused.replace(true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.note_wait(self.tcp.poll_read_ready(cx))
    }

    fn note_wait<T>(&self, poll: Poll<T>) -> Poll<T> {
        if poll.is_pending() {
            self.waits.set(true);
        }
        poll
    }

    /// Whether the service waits for its client. Otherwise it is at work, or waits for something else.
    ///
    /// A future that was dropped does not say that it waits no more. So this gives the service and the tasks with its
    /// halves another turn, in which those that wait ask again. The connection's own task awaits it, after the service.
    pub async fn waits_for_client(&self) -> bool {
        self.waits.set(false);
        self.reader.borrow().iter().for_each(Waker::wake_by_ref);
        self.ring();
        // This task may be among the woken ones, and the first of them.
        for _ in 0..2 {
            tokio::task::yield_now().await;
        }
        self.waits.get()
    }

    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_readable(cx))?;
            match self.try_read(buffer.initialize_unfilled()) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                read => return Poll::Ready(read.map(|n| buffer.advance(n))),
            }
        }
    }

    /// Reads what is there, up to the end of the input, which is `Ok(0)`. Gives `WouldBlock` if no byte is there.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0); // asking for nothing is not the end
        }
        let due = usize::try_from(self.due.get()).unwrap_or(usize::MAX);
        match if self.input_has_ended() { due.min(buffer.len()) } else { buffer.len() } {
            0 => Ok(0),
            most => self.receive(&mut buffer[..most], Record::count_received),
        }
    }

    fn receive(&self, buffer: &mut [u8], count: impl FnOnce(&Record, &[u8])) -> io::Result<usize> {
        // The bytes that are due are there, also where the reactor has not heard of them yet.
        let due = self.due.take();
        let n = if due > 0 { self.receive_now(buffer) } else { self.receive_if_ready(buffer) }?;
        self.due.set(if n == 0 { 0 } else { due.saturating_sub(n as u64) });
        self.paused.set(false);
        self.client_done.set(n == 0);
        count(&self.record, &buffer[..n]);
        self.touch();
        if n > 0 && self.state() == ConnectionState::LastWord {
            self.end_input(Ending::Stopped);
        }
        Ok(n)
    }

    fn receive_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.note_failure((&*SockRef::from(&self.tcp)).read(buffer))
    }

    fn receive_if_ready(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut received = Err(ErrorKind::WouldBlock.into());
        let _ = self.tcp.try_io(Interest::READABLE, || {
            received = self.receive_now(buffer);
            match received {
                // A short read has emptied the queue (except for TCP's urgent data). Saying so now saves the call that
                // would find out: one `recv` per echo instead of two. Bytes that arrive later are a new event for the
                // reactor.
                Ok(n) if 0 < n && n < buffer.len() => Err(ErrorKind::WouldBlock.into()),
                Ok(_) => Ok(()),
                Err(ref error) => Err(error.kind().into()),
            }
        });
        received
    }

    /// Moves what is there, behind the first bytes, into the pipe, and gives how much it is. After 0 a read finds out why. It
    /// asks the socket and not the reactor, and tells the reactor nothing, so that this read can. When the server has given the
    /// input an end, all is left to reads.
    pub fn try_move_in(&self, pipe: &Pipe) -> io::Result<usize> {
        if self.state() != ConnectionState::Serving {
            return Ok(0);
        }
        let n = self.note_failure(pipe.move_in(&self.tcp))?;
        if n > 0 {
            self.record.count_more(n as u64);
            self.touch();
        }
        Ok(n)
    }

    pub fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_writable(cx))?;
            match self.try_write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.note_wait(self.tcp.poll_write_ready(cx))
    }

    /// Writes what the socket takes. Gives `WouldBlock` if it takes nothing.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.send(|| self.tcp.try_write(bytes))
    }

    /// Moves as many of the pipe's `n` bytes to the client as the socket takes. Gives `WouldBlock` if it takes nothing.
    pub fn try_move_out(&self, pipe: &Pipe, n: usize) -> io::Result<usize> {
        self.send(|| self.tcp.try_io(Interest::WRITABLE, || pipe.move_out(&self.tcp, n)))
    }

    fn send(&self, send: impl FnOnce() -> io::Result<usize>) -> io::Result<usize> {
        if self.finished.get() {
            return Err(ErrorKind::BrokenPipe.into()); // the service's own doing, and not the client's
        }
        let n = self.note_failure(send())?;
        self.record.count_echoed(n as u64);
        self.touch();
        Ok(n)
    }

    fn note_failure<T>(&self, moved: io::Result<T>) -> io::Result<T> {
        moved.inspect_err(|error| {
            if error.kind() != ErrorKind::WouldBlock {
                self.broken.set(true);
            }
        })
    }

    /// Whether the socket has failed while the service ran.
    pub fn is_broken(&self) -> bool {
        self.broken.get()
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr().map(canonical)
    }

    // The queue and the end.

    /// Resolves when the client of a waiting connection has gone. It reads no byte. A client that has sent something and
    /// ended its input is still owed an echo; one that has sent nothing is not.
    pub async fn gone(&self) -> CloseReason {
        // In tokio, PRIORITY also means "a FIN has come, and no data".
        let ready = self.tcp.ready(Interest::PRIORITY | Interest::ERROR).await;
        if !ready.is_ok_and(|ready| ready.is_error()) {
            if ioctl_fionread(&self.tcp).unwrap_or(0) == 0 {
                return CloseReason::Client;
            }
            // A FIN stays "ready" for good. From here on only an error counts.
            let _ = self.tcp.ready(Interest::ERROR).await;
        }
        CloseReason::Reset
    }

    /// Sends FIN, once.
    pub fn send_fin(&self) -> io::Result<()> {
        // A second shutdown would be an error if the client has ended meanwhile.
        if self.finished.replace(true) { Ok(()) } else { SockRef::from(&self.tcp).shutdown(Shutdown::Write) }
    }

    /// The service is done.
    pub fn finish(&self) -> io::Result<()> {
        self.set_state(self.state().finish());
        self.ring();
        self.send_fin()
    }

    /// The service has failed.
    pub fn fail(&self, error: io::Error) {
        self.set_state(self.state().fail());
        self.ring();
        self.record.error.set(Some(error));
    }

    /// Whether everything is delivered and only the client's FIN is missing. `linger` bounds that wait.
    pub fn is_lingering(&self) -> bool {
        matches!(self.state(), ConnectionState::Closing(_)) && self.unacknowledged().is_ok_and(|bytes| bytes <= 1)
    }

    /// Reads and discards what the client still sends. True once its FIN has been read.
    pub fn discard(&self) -> io::Result<bool> {
        for _ in 0..READS_IN_A_ROW {
            if self.client_done.get() {
                // After the FIN no read reports a reset.
                self.check()?;
                break;
            }
            match with_buffer(|buffer| self.receive(buffer, Record::count_discarded)) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                read => read?,
            };
        }
        Ok(self.client_done.get())
    }

    /// Resolves when `discard` has bytes to read. After the client's FIN it never resolves.
    pub async fn more_to_discard(&self) -> io::Result<()> {
        self.tcp.readable().await
    }

    /// Bytes that the client's system has not acknowledged yet. A FIN counts as one.
    pub fn unacknowledged(&self) -> io::Result<u64> {
        kernel::unacknowledged(&self.tcp)
    }

    /// An error if the connection has failed. It takes the error from the socket, and later reads give an end of input
    /// instead. So ask only when the service is done.
    pub fn check(&self) -> io::Result<()> {
        self.tcp.take_error()?.map_or(Ok(()), Err)
    }

    /// Whether the client has gone unheard by the service and the lingering close. Either it was silent at the last look
    /// and still is, or it has reset a connection whose service waits for something else.
    pub fn client_is_gone(&self) -> bool {
        let silent = self.unacknowledged().unwrap_or(0) > 0 && kernel::is_silent(&self.tcp);
        let vanished = self.silent.replace(silent) && silent;
        vanished || (self.is_in_service() && self.is_reset())
    }

    /// Whether the client has reset the connection. Either the service got the error and goes on all the same, or the
    /// reactor has heard of it. The kernel is not asked, so every read still gets its error.
    fn is_reset(&self) -> bool {
        let ready = self.tcp.ready(Interest::ERROR).now_or_never();
        self.is_broken() || ready.is_some_and(|ready| ready.is_ok_and(|ready| ready.is_error()))
    }

    /// The connection has ended well. Closing it from here on is no reset.
    pub fn earned_clean_end(&self) -> io::Result<()> {
        SockRef::from(&self.tcp).set_linger(None::<Duration>)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.ring();
    }
}
