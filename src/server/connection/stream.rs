//! One client's stream and what is known of it, shared by the two planes of its connection: the actor gives orders, the
//! service moves bytes. Both run on the thread that accepted it, so cells are enough.

use crate::{
    buffer::{READS_IN_A_ROW, with_buffer},
    decisions::connection::{CloseReason, ConnectionState, Ending},
    server::connection::{
        kernel,
        record::{Record, canonical},
    },
};
use futures_util::FutureExt;
use rustix::io::ioctl_fionread;
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
    state: Cell<ConnectionState>,
    /// Whether the service is only notified when it is to end: then its input stays open.
    notify: bool,
    /// Of the bytes that had arrived when the service was told to end, those still to be read.
    due: Cell<u64>,
    /// Whether reading has paused, for a service that is notified to look up.
    paused: Cell<bool>,
    /// Whether the client's FIN has been read.
    client_done: Cell<bool>,
    /// Whether our own FIN has been sent.
    finished: Cell<bool>,
    /// Whether the socket has failed: the client has reset the connection.
    broken: Cell<bool>,
    /// Whether the client was silent at the Worker's last look.
    silent: Cell<bool>,
    /// Whether the service has waited for its client, to send or to read, since it was last asked.
    waits: Cell<bool>,
    /// Whether to note when a byte moves: only an idle timeout asks for it.
    watch_idle: bool,
    active: Cell<Instant>,
    /// The task that waits for input, to be told that it has ended.
    reader: RefCell<Option<Waker>>,
    /// Rung when the service is to end, when it has ended, and when the connection is over. Made when somebody first listens.
    bell: OnceCell<Rc<Notify>>,
}

impl Stream {
    pub fn new(tcp: TcpStream, record: Record, notify: bool, watch_idle: bool) -> Self {
        Self {
            tcp,
            record,
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

    // Orders.

    /// The server wants the service to end. Its input ends after what has arrived by now, so that a client that keeps sending
    /// cannot keep it open. The input of a service that asked to be notified stays open, but pauses there.
    pub fn end_input(&self, ending: Ending) {
        let before = self.state.replace(self.state().end_input(ending));
        if before.ending().is_some() || self.state().ending().is_none() {
            return;
        }
        // A socket that cannot tell is broken, and reading from it says so.
        self.due.set(ioctl_fionread(&self.tcp).unwrap_or(0));
        self.reader.take().into_iter().for_each(Waker::wake);
        self.ring();
    }

    fn ring(&self) {
        self.bell.get().into_iter().for_each(|bell| bell.notify_waiters());
    }

    /// Resolves when it is so, at the latest when the connection is over. Holds the connection weakly.
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
        !self.notify && self.state().ending().is_some()
    }

    fn wake_at_the_end(&self, cx: &Context<'_>) {
        let mut reader = self.reader.borrow_mut();
        match &mut *reader {
            Some(waker) => waker.clone_from(cx.waker()), // does nothing if it is the same
            None => *reader = Some(cx.waker().clone()),
        }
    }

    /// Resolves when the server wants a connection to end whose service has not begun.
    pub async fn told_to_end(&self) {
        poll_fn(|cx| {
            self.wake_at_the_end(cx);
            if self.state().ending().is_some() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// The connection has its slot, and the service begins, unless there is nothing to do but to drain.
    pub fn serve(&self) {
        self.state.set(self.state().serve());
        if self.state() == ConnectionState::Serving {
            self.touch();
            self.record.log_opened();
        }
    }

    /// Whether the service has begun and is not over.
    pub fn is_in_service(&self) -> bool {
        matches!(self.state(), ConnectionState::Serving | ConnectionState::Draining(_))
    }

    /// When a byte last moved in either direction, if an idle timeout is set.
    pub fn active(&self) -> Instant {
        self.active.get()
    }

    /// Takes now for the time at which a byte last moved.
    pub fn touch(&self) {
        if self.watch_idle {
            self.active.set(Instant::now());
        }
    }

    // The data plane.

    /// Ready when `try_read` may bring something, the end of the input included.
    ///
    /// A service that is notified gets what had arrived at the stop without a wait, and before each later read it has to wait
    /// once. So one that prefers to read sees the stop behind what had arrived, though its client never pauses.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.due.get() > 0 || self.input_has_ended() {
            return Poll::Ready(Ok(()));
        }
        self.wake_at_the_end(cx);
        if self.state().ending().is_some() && !self.paused.replace(true) {
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
    /// A future that is no longer waited for does not say so. So the service and the tasks with its halves have another turn: what
    /// waits asks again. For that it is awaited in the task of the connection, behind the service.
    pub async fn waits_for_client(&self) -> bool {
        self.waits.set(false);
        self.reader.borrow().iter().for_each(Waker::wake_by_ref);
        self.ring();
        // This task may be among those that are woken, and the first of them.
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

    /// Reads what is there, up to the end of the input, which is `Ok(0)`; `WouldBlock` if nothing is.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0); // asking for nothing is not the end
        }
        let due = usize::try_from(self.due.get()).unwrap_or(usize::MAX);
        match if self.input_has_ended() { due.min(buffer.len()) } else { buffer.len() } {
            0 => Ok(0),
            most => self.receive(&mut buffer[..most], &self.record.received),
        }
    }

    fn receive(&self, buffer: &mut [u8], count: &Cell<u64>) -> io::Result<usize> {
        // What is due is there, also where the reactor has not heard of it yet.
        let due = self.due.take();
        let received = if due > 0 { self.receive_now(buffer) } else { self.receive_if_ready(buffer) };
        let n = self.note_failure(received)?;
        self.due.set(if n == 0 { 0 } else { due.saturating_sub(n as u64) });
        self.paused.set(false);
        self.client_done.set(n == 0);
        self.moved(count, n);
        Ok(n)
    }

    fn receive_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*SockRef::from(&self.tcp)).read(buffer)
    }

    fn receive_if_ready(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut received = Err(ErrorKind::WouldBlock.into());
        let _ = self.tcp.try_io(Interest::READABLE, || {
            received = self.receive_now(buffer);
            match received {
                // A short read has emptied the queue (but for TCP's urgent data). Saying so now saves the call that would
                // find out: one `recv` per echo instead of two. What arrives later is a new event for the reactor.
                Ok(n) if 0 < n && n < buffer.len() => Err(ErrorKind::WouldBlock.into()),
                Ok(_) => Ok(()),
                Err(ref error) => Err(error.kind().into()),
            }
        });
        received
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

    /// Writes what the socket takes; `WouldBlock` if it takes nothing.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        if self.finished.get() {
            return Err(ErrorKind::BrokenPipe.into()); // the service's own doing, and not the client's
        }
        let n = self.note_failure(self.tcp.try_write(bytes))?;
        self.moved(&self.record.echoed, n);
        Ok(n)
    }

    fn note_failure<T>(&self, moved: io::Result<T>) -> io::Result<T> {
        moved.inspect_err(|error| {
            if error.kind() != ErrorKind::WouldBlock {
                self.broken.set(true);
            }
        })
    }

    /// Whether the socket has failed under the service.
    pub fn is_broken(&self) -> bool {
        self.broken.get()
    }

    fn moved(&self, count: &Cell<u64>, n: usize) {
        count.set(count.get() + n as u64);
        self.touch();
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr().map(canonical)
    }

    // The waiting room and the end.

    /// Resolves when the client of a connection that waits has gone, and reads no byte: one that has sent something and
    /// ended its input is still owed an echo, one that has sent nothing is not.
    pub async fn gone(&self) -> CloseReason {
        // PRIORITY is how tokio spells "told of a FIN, not of data".
        let ready = self.tcp.ready(Interest::PRIORITY | Interest::ERROR).await;
        if !ready.is_ok_and(|ready| ready.is_error()) {
            if ioctl_fionread(&self.tcp).unwrap_or(0) == 0 {
                return CloseReason::Client;
            }
            // A FIN stays "ready" for good, so from here on only an error counts.
            let _ = self.tcp.ready(Interest::ERROR).await;
        }
        CloseReason::Reset
    }

    /// Sends FIN, once.
    pub fn send_fin(&self) -> io::Result<()> {
        // A second one would be an error if the client has ended meanwhile.
        if self.finished.replace(true) { Ok(()) } else { SockRef::from(&self.tcp).shutdown(Shutdown::Write) }
    }

    /// The service is done.
    pub fn finish(&self) -> io::Result<()> {
        self.state.set(self.state().finish());
        self.ring();
        self.send_fin()
    }

    /// The service has failed.
    pub fn fail(&self, error: io::Error) {
        self.state.set(self.state().fail());
        self.ring();
        self.record.error.set(Some(error));
    }

    /// Whether everything is delivered and only the client's FIN is waited for, which `linger` bounds.
    pub fn is_lingering(&self) -> bool {
        matches!(self.state(), ConnectionState::Closing(_)) && self.unacknowledged().is_ok_and(|bytes| bytes <= 1)
    }

    /// Reads and throws away what the client still sends. True once its FIN has been read.
    pub fn discard(&self) -> io::Result<bool> {
        for _ in 0..READS_IN_A_ROW {
            if self.client_done.get() {
                // After the FIN no read tells of a reset any more.
                self.check()?;
                break;
            }
            match with_buffer(|buffer| self.receive(buffer, &self.record.discarded)) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                read => read?,
            };
        }
        Ok(self.client_done.get())
    }

    /// Resolves when `discard` has something to do; not after the client's FIN.
    pub async fn more_to_discard(&self) -> io::Result<()> {
        self.tcp.readable().await
    }

    /// Bytes that the client's system has not acknowledged yet. A FIN counts as one.
    pub fn unacknowledged(&self) -> io::Result<u64> {
        kernel::unacknowledged(&self.tcp)
    }

    /// An error if the connection has failed. It takes the error from the socket, and reads give an end of input after that: so
    /// ask only where the service is done.
    pub fn check(&self) -> io::Result<()> {
        self.tcp.take_error()?.map_or(Ok(()), Err)
    }

    /// Whether the client has gone without a word that the service or the lingering close would hear: it was silent at the
    /// last look and is still, or it has reset a connection whose service waits for something else.
    pub fn client_is_gone(&self) -> bool {
        let silent = self.unacknowledged().unwrap_or(0) > 0 && kernel::is_silent(&self.tcp);
        let vanished = self.silent.replace(silent) && silent;
        vanished || (self.is_in_service() && self.is_reset())
    }

    /// Whether the client has reset the connection: the service was told of it and goes on all the same, or the reactor has
    /// heard of it. The kernel is not asked, so no read misses its error.
    fn is_reset(&self) -> bool {
        let ready = self.tcp.ready(Interest::ERROR).now_or_never();
        self.is_broken() || ready.is_some_and(|ready| ready.is_ok_and(|ready| ready.is_error()))
    }

    /// The connection has come to a good end: closing it from here on is no reset.
    pub fn earned_clean_end(&self) -> io::Result<()> {
        SockRef::from(&self.tcp).set_linger(None::<Duration>)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.ring();
    }
}
