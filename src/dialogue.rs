//! The data plane of one of the client's connections: connect, send, verify, pause, and once more.
//!
//! Ordinary async code over any stream; it hears orders through a watch channel and tells everything to its [`Journal`].

use crate::{
    connect::{Connect, keep_trying},
    journal::{Closed, End, Journal, Lost},
    link::with_buffer,
    messages::Stop,
    settings::TrafficSettings,
    verify::{Difference, Verifier},
};
use futures_util::FutureExt;
use std::{
    future::{pending, poll_fn},
    io::ErrorKind,
    panic::AssertUnwindSafe,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    thread,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

/// How long a stop waits for the echo that is outstanding, unless that one's own timeout ends before.
const STOP_PATIENCE: Duration = Duration::from_secs(1);
/// How long a close waits for the server's FIN, which shows that nothing more comes.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// How far a Caller has been told to go.
pub(crate) type Order = watch::Receiver<Option<Stop>>;

/// Resolves when at least this much has been ordered.
async fn ordered(mut order: Order, stop: Stop) {
    // The other end is the actor's, which is never gone before its data plane.
    let _ = order.wait_for(|order| *order >= Some(stop)).await;
}

/// What all connections of one client have to do.
#[derive(Debug)]
pub(crate) struct Plan {
    pub id: String,
    /// The server's address, as it was given.
    pub server: String,
    pub traffic: TrafficSettings,
    pub connect_timeout: Duration,
}

impl Plan {
    /// The `n`th message. What the id holds is not filled in again.
    fn message(&self, n: u64) -> Vec<u8> {
        let n = n.to_string();
        let parts: Vec<_> = self.traffic.message.split("{id}").map(|part| part.replace("{n}", &n)).collect();
        let mut message = parts.join(&self.id).into_bytes();
        message.push(b'\n');
        message
    }
}

/// Lives a Caller's life. A panic ends here, an abort takes the stream away from whatever is being done with it.
pub(crate) async fn converse<C: Connect>(plan: Rc<Plan>, server: Rc<C>, order: Order, journal: Rc<Journal>) {
    let dialogue = Dialogue {
        plan: &plan,
        server: &*server,
        order: order.clone(),
        journal: journal.clone(),
        open: None,
        n: 0,
        until: None,
        broken: false,
    };
    let end = tokio::select! {
        biased;
        () = ordered(order, Stop::Abort) => End::Forced,
        end = AssertUnwindSafe(dialogue.run()).catch_unwind() => end.unwrap_or(End::Crashed),
    };
    journal.end(end);
}

/// A stream and, once that is closed, the record of it.
struct Open<S> {
    // Dropped in this order.
    stream: S,
    closing: Closing,
    /// The length of the last echo.
    echoed: u64,
}

impl<S> Open<S> {
    fn close(mut self, reason: Closed) {
        self.closing.reason = Some(reason);
    }
}

struct Closing {
    journal: Rc<Journal>,
    reason: Option<Closed>,
}

impl Drop for Closing {
    fn drop(&mut self) {
        let cut_off = if thread::panicking() { Closed::Crashed } else { Closed::Forced };
        self.journal.closed(self.reason.unwrap_or(cut_off));
    }
}

struct Dialogue<'a, C: Connect> {
    plan: &'a Plan,
    server: &'a C,
    order: Order,
    journal: Rc<Journal>,
    /// Taken by whoever works with it, and put back only in good order.
    open: Option<Open<C::Stream>>,
    /// The last message; they count from 1.
    n: u64,
    /// The end of `duration`, which begins with the first connection.
    until: Option<Instant>,
    /// Whether the last stream came to another end than was planned.
    broken: bool,
}

impl<C: Connect> Dialogue<'_, C> {
    async fn run(mut self) -> End {
        let end = loop {
            if let Err(end) = self.round().await {
                break end;
            }
        };
        self.close(if end == End::Stopped { Closed::Stopped } else { Closed::Done }).await;
        end
    }

    /// One message and what follows it. The error is the end of it all.
    async fn round(&mut self) -> Result<(), End> {
        let open = self.connected().await?;
        self.exchange(open).await;
        if self.plan.traffic.reconnect {
            self.close(Closed::Done).await;
        }
        self.pause().await
    }

    async fn connected(&mut self) -> Result<Open<C::Stream>, End> {
        if let Some(open) = self.open.take() {
            return Ok(open);
        }
        if self.broken {
            self.journal.reconnecting();
        }
        let connected = tokio::select! {
            biased;
            () = ordered(self.order.clone(), Stop::Drain) => return Err(End::Stopped),
            connected = keep_trying(self.server, self.plan.connect_timeout, &self.journal.log) => connected,
            () = reached(self.until) => return Err(End::Finished),
        };
        let (stream, address) = connected.map_err(|error| End::Unreachable(error.to_string()))?;
        self.journal.connected(address);
        self.broken = false;
        let duration = self.plan.traffic.duration;
        if self.until.is_none() && !duration.is_zero() {
            self.until = Some(Instant::now() + duration);
        }
        Ok(Open { stream, closing: Closing { journal: self.journal.clone(), reason: None }, echoed: 0 })
    }

    /// Sends the next message and waits for its echo; a stop shortens the wait. The stream is kept if all is well.
    async fn exchange(&mut self, mut open: Open<C::Stream>) {
        self.n += 1;
        let (n, message) = (self.n, self.plan.message(self.n));
        let started = Instant::now();
        let given_up = async {
            ordered(self.order.clone(), Stop::Drain).await;
            sleep(STOP_PATIENCE).await;
        };
        let echoed = tokio::select! {
            biased;
            echoed = echo(&mut open.stream, &message) => echoed,
            () = sleep_until(started + self.plan.traffic.timeout) => Err(Failure::Lost(Lost::Timeout)),
            () = given_up => Err(Failure::Lost(Lost::Timeout)),
        };
        self.broken = echoed.is_err();
        match echoed {
            Ok(()) => {
                self.journal.verified(n, started.elapsed());
                open.echoed = message.len() as u64;
                self.open = Some(open);
            }
            Err(Failure::Wrong(difference)) => {
                self.journal.wrong(n, &difference);
                open.close(Closed::Wrong);
            }
            // Whose fault that is cannot be told any more: a server that stops at the same time owes no echo.
            Err(Failure::Lost(_)) if *self.order.borrow() >= Some(Stop::Drain) => {
                self.journal.given_up(n);
                open.close(Closed::Stopped);
            }
            Err(Failure::Lost(reason)) => {
                self.journal.lost(n, reason);
                open.close(Closed::Lost(reason));
            }
        }
    }

    /// Waits until the next message is due, and watches the stream meanwhile. The error is the end of it all.
    async fn pause(&mut self) -> Result<(), End> {
        let TrafficSettings { messages, period, .. } = self.plan.traffic;
        if messages != 0 && self.n >= messages {
            return Err(End::Finished);
        }
        let due = Instant::now() + period;
        loop {
            let unasked = async {
                match &mut self.open {
                    Some(open) => unasked(open).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                () = ordered(self.order.clone(), Stop::Drain) => return Err(End::Stopped),
                failure = unasked => self.interrupted(failure),
                () = reached(self.until) => return Err(End::Finished),
                () = rest(due, period) => return Ok(()),
            }
        }
    }

    /// Something has come from the server that was not asked for, its end at least: this stream is of no more use.
    fn interrupted(&mut self, failure: Failure) {
        let Some(open) = self.open.take() else { return };
        self.broken = true;
        match failure {
            Failure::Wrong(difference) => {
                self.journal.wrong_after_all(self.n, &difference);
                open.close(Closed::Wrong);
            }
            Failure::Lost(reason) => open.close(Closed::Lost(reason)),
        }
    }

    /// Ends the stream, once it has shown that nothing comes behind the last echo.
    async fn close(&mut self, reason: Closed) {
        let Some(open) = &mut self.open else { return };
        let farewell = async {
            // One that cannot be ended tells why when it is read.
            let _ = open.stream.shutdown().await;
            unasked(open).await
        };
        match timeout(CLOSE_PATIENCE, farewell).await {
            Ok(failure @ Failure::Wrong(_)) => self.interrupted(failure),
            Ok(Failure::Lost(_)) | Err(_) => {
                if let Some(open) = self.open.take() {
                    open.close(reason);
                }
            }
        }
    }
}

async fn reached(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

/// A timer takes a millisecond even where there is nothing to wait for.
async fn rest(due: Instant, period: Duration) {
    if !period.is_zero() {
        sleep_until(due).await;
    }
}

/// What came instead of an echo.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    Wrong(Difference),
    Lost(Lost),
}

impl Failure {
    fn of(error: ErrorKind) -> Self {
        // The system says so of a write to a connection that the other side had ended before it was reset.
        Self::Lost(if error == ErrorKind::BrokenPipe { Lost::Closed } else { Lost::Reset })
    }
}

/// Sends a message and verifies what comes back, both at once: a server may take no more of a large message before it has
/// got rid of some of its echo.
async fn echo<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, message: &[u8]) -> Result<(), Failure> {
    let (mut sent, mut write_error) = (0, None);
    let mut verifier = Verifier::default();
    poll_fn(|cx| {
        while sent < message.len() && write_error.is_none() {
            match Pin::new(&mut *stream).poll_write(cx, &message[sent..]) {
                Poll::Ready(Ok(n)) => sent += n,
                // What the server has sent before may still be read, and be wrong.
                Poll::Ready(Err(error)) => write_error = Some(error.kind()),
                Poll::Pending => break,
            }
        }
        while verifier.verified() < message.len() {
            let received = ready!(poll_read(stream, cx, |piece| match piece {
                [] => Err(write_error.map_or(Failure::Lost(Lost::Closed), Failure::of)),
                piece => verifier.receive(&message[..sent], piece).map_err(Failure::Wrong),
            }));
            received?;
        }
        Poll::Ready(Ok(()))
    })
    .await
}

/// Resolves when something comes though no message is out.
async fn unasked<S: AsyncRead + Unpin>(open: &mut Open<S>) -> Failure {
    let Open { stream, echoed, .. } = open;
    let failure = poll_fn(|cx| {
        poll_read(stream, cx, |piece| match piece {
            [] => Err(Failure::Lost(Lost::Closed)),
            piece => Ok(Failure::Wrong(Difference::surplus(*echoed, piece))),
        })
    });
    failure.await.unwrap_or_else(|failure| failure)
}

/// Reads into the thread's buffer: a connection that waits holds none.
fn poll_read<S: AsyncRead + Unpin, T>(
    stream: &mut S,
    cx: &mut Context<'_>,
    take: impl FnOnce(&[u8]) -> Result<T, Failure>,
) -> Poll<Result<T, Failure>> {
    with_buffer(|buffer| {
        let mut buffer = ReadBuf::new(buffer);
        let read = ready!(Pin::new(stream).poll_read(cx, &mut buffer));
        Poll::Ready(read.map_err(|error| Failure::of(error.kind())).and_then(|()| take(buffer.filled())))
    })
}
