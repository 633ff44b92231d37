//! The data plane of one of the client's connections: connect, send, verify, pause, and once more.
//!
//! It is ordinary async code over any stream. It hears orders through a watch channel and reports everything to its
//! [`Record`].

use crate::{
    client::{
        connect::{Connect, FIRST_PAUSE, keep_trying, no_answer},
        exchange::{Failure, echo, unasked},
        record::{Closed, End, Lost, Record},
    },
    decisions::stop::Stop,
    settings::TrafficSettings,
};
use futures_util::FutureExt;
use std::{future::pending, ops::ControlFlow, panic::AssertUnwindSafe, rc::Rc, thread, time::Duration};
use tokio::{
    io::AsyncWriteExt,
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

/// How long a stop waits for the outstanding echo, unless the echo's own timeout ends before.
const STOP_PATIENCE: Duration = Duration::from_secs(1);
/// How long the client delays counting an echo that is lost with its stream: the order to stop may be under way.
const ORDER_PATIENCE: Duration = Duration::from_millis(100);
/// How long a close waits for the server's FIN, which shows that no more bytes come.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// The last order that a ConnectionActor was given.
pub(crate) type Order = watch::Receiver<Option<Stop>>;

/// Resolves when at least this much has been ordered.
async fn ordered(mut order: Order, stop: Stop) {
    // The other end is the actor's, and the actor outlives its data plane.
    let _ = order.wait_for(|order| *order >= Some(stop)).await;
}

/// The work that all connections of one client share.
#[derive(Debug)]
pub(crate) struct Plan {
    pub id: String,
    /// The server's address, as it was given.
    pub server: String,
    pub traffic: TrafficSettings,
    pub connect_timeout: Duration,
}

impl Plan {
    /// The `n`th message. Braces that come with the id are not filled in again.
    fn message(&self, n: u64) -> Vec<u8> {
        let n = n.to_string();
        let parts: Vec<_> = self.traffic.message.split("{id}").map(|part| part.replace("{n}", &n)).collect();
        let mut message = parts.join(&self.id).into_bytes();
        message.push(b'\n');
        message
    }
}

/// Runs a ConnectionActor's session from its start to its end. A panic ends here. An abort drops the session with its
/// stream, at any `await`.
pub(crate) async fn converse<C: Connect>(plan: Rc<Plan>, server: Rc<C>, order: Order, record: Rc<Record>) {
    let session = Session {
        plan: &plan,
        server: &*server,
        order: order.clone(),
        record: record.clone(),
        open: None,
        n: 0,
        until: None,
        broken: false,
        barren: false,
    };
    let end = tokio::select! {
        biased;
        () = ordered(order, Stop::Abort) => End::Forced,
        end = AssertUnwindSafe(session.run()).catch_unwind() => end.unwrap_or(End::Crashed),
    };
    record.end(end);
}

/// A stream and its record, which is written once the stream is closed.
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
    record: Rc<Record>,
    reason: Option<Closed>,
}

impl Drop for Closing {
    fn drop(&mut self) {
        let cut_off = if thread::panicking() { Closed::Crashed } else { Closed::Forced };
        self.record.closed(self.reason.unwrap_or(cut_off));
    }
}

/// A message that is out. Unless its outcome is noted, it counts as given up.
struct Outstanding<'a> {
    record: &'a Record,
    n: u64,
}

impl<'a> Outstanding<'a> {
    /// Notes that its outcome is known.
    fn settled(self) -> &'a Record {
        let record = self.record;
        std::mem::forget(self);
        record
    }
}

impl Drop for Outstanding<'_> {
    fn drop(&mut self) {
        self.record.given_up(self.n);
    }
}

struct Session<'a, C: Connect> {
    plan: &'a Plan,
    server: &'a C,
    order: Order,
    record: Rc<Record>,
    /// The open stream. The step that uses it takes it out, and puts it back only if all is well.
    open: Option<Open<C::Stream>>,
    /// The number of the last message, counted from 1.
    n: u64,
    /// When `duration` ends. It begins with the first connection.
    until: Option<Instant>,
    /// Whether the last stream ended otherwise than planned.
    broken: bool,
    /// Whether the last stream has brought no echo. The client then pauses: otherwise it would connect thousands of times a
    /// second to a server that accepts and closes at once.
    barren: bool,
}

impl<C: Connect> Session<'_, C> {
    async fn run(mut self) -> End {
        let end = loop {
            if let ControlFlow::Break(end) = self.round().await {
                break end;
            }
        };
        self.close(if end == End::Stopped { Closed::Stopped } else { Closed::Done }).await;
        end
    }

    /// Sends one message and does what follows it.
    async fn round(&mut self) -> ControlFlow<End> {
        let open = self.connected().await?;
        self.exchange(open).await;
        if self.plan.traffic.reconnect {
            self.close(Closed::Done).await;
        }
        self.pause().await
    }

    async fn connected(&mut self) -> ControlFlow<End, Open<C::Stream>> {
        if let Some(open) = self.open.take() {
            return ControlFlow::Continue(open);
        }
        if self.broken {
            self.record.reconnecting();
        }
        let pause = if self.barren { FIRST_PAUSE } else { Duration::ZERO };
        let begun = Instant::now() + pause;
        let latest = begun + self.plan.connect_timeout;
        let deadline = self.until.map_or(latest, |until| until.min(latest));
        let connecting = async {
            rest(begun.min(deadline), pause).await;
            keep_trying(self.server, deadline, &self.record.log).await
        };
        let connected = tokio::select! {
            biased;
            () = ordered(self.order.clone(), Stop::Drain) => return ControlFlow::Break(End::Stopped),
            connected = connecting => connected,
        };
        let (stream, address) = match connected {
            Ok(connected) => connected,
            Err(None) if self.until == Some(deadline) => return ControlFlow::Break(End::Finished),
            // This also counts when the time is over: the missing server is what ended the session.
            Err(error) => {
                let limit = Duration::from_millis((deadline - begun).as_millis() as u64);
                let reason = error.unwrap_or_else(no_answer).to_string();
                return ControlFlow::Break(End::Unreachable { limit, reason });
            }
        };
        self.record.connected(address);
        (self.broken, self.barren) = (false, true);
        let duration = self.plan.traffic.duration;
        if self.until.is_none() && !duration.is_zero() {
            self.until = Some(Instant::now() + duration);
        }
        let closing = Closing { record: self.record.clone(), reason: None };
        ControlFlow::Continue(Open { stream, closing, echoed: 0 })
    }

    /// Sends the next message and waits for its echo. A stop shortens the wait. The stream is kept if all is well.
    async fn exchange(&mut self, mut open: Open<C::Stream>) {
        self.n += 1;
        let (n, message) = (self.n, self.plan.message(self.n));
        let outstanding = Outstanding { record: &self.record, n };
        let (started, limit) = (Instant::now(), self.plan.traffic.timeout);
        let stop_patience_over = async {
            ordered(self.order.clone(), Stop::Drain).await;
            sleep(STOP_PATIENCE).await;
        };
        let echoed = tokio::select! {
            biased;
            echoed = echo(&mut open.stream, &message) => echoed,
            () = sleep_until(started + limit) => Err(Failure::Lost(Lost::Timeout)),
            () = stop_patience_over => Err(Failure::Lost(Lost::Timeout)),
        };
        let elapsed = started.elapsed();
        // After a stall of this process the echo and its timeout can come together.
        let echoed = if elapsed > limit { echoed.and(Err(Failure::Lost(Lost::Timeout))) } else { echoed };
        // If client and server are stopped at the same moment, either the end of the server's stream or the order to stop
        // comes first. An echo that is lost during a stop is not owed (see below), so the client gives the order time to
        // arrive.
        if let Err(Failure::Lost(Lost::Closed | Lost::Reset)) = echoed {
            let _ = timeout(ORDER_PATIENCE, ordered(self.order.clone(), Stop::Drain)).await;
        }
        self.broken = echoed.is_err();
        match echoed {
            Ok(()) => {
                outstanding.settled().verified(n, elapsed);
                open.echoed = message.len() as u64;
                self.barren = false;
                self.open = Some(open);
            }
            Err(Failure::Wrong(difference)) => {
                outstanding.settled().wrong(n, &difference);
                open.close(Closed::Wrong);
            }
            // During a stop the client cannot tell whose fault that is: a server that stops at the same time owes no echo.
            Err(Failure::Lost(_)) if *self.order.borrow() >= Some(Stop::Drain) => {
                drop(outstanding);
                open.close(Closed::Stopped);
            }
            Err(Failure::Lost(reason)) => {
                outstanding.settled().lost(n, reason);
                open.close(Closed::Lost(reason));
            }
        }
    }

    /// Waits until the next message is due, and watches the stream meanwhile.
    async fn pause(&mut self) -> ControlFlow<End> {
        let TrafficSettings { messages, period, .. } = self.plan.traffic;
        if messages != 0 && self.n >= messages {
            return ControlFlow::Break(End::Finished);
        }
        let due = Instant::now() + period;
        loop {
            let interruption = async {
                match &mut self.open {
                    Some(open) => unasked(&mut open.stream, open.echoed).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                () = ordered(self.order.clone(), Stop::Drain) => return ControlFlow::Break(End::Stopped),
                failure = interruption => self.interrupted(failure),
                () = reached(self.until) => return ControlFlow::Break(End::Finished),
                () = rest(due, period) => return ControlFlow::Continue(()),
            }
        }
    }

    /// The server has sent something unasked, or ended the stream. The stream is of no more use.
    fn interrupted(&mut self, failure: Failure) {
        let Some(open) = self.open.take() else { return };
        self.broken = true;
        match failure {
            Failure::Wrong(difference) => {
                self.record.wrong_after_all(self.n, &difference);
                open.close(Closed::Wrong);
            }
            Failure::Lost(reason) => open.close(Closed::Lost(reason)),
        }
    }

    /// Ends the stream, once it has shown that no byte comes behind the last echo.
    async fn close(&mut self, reason: Closed) {
        let Some(open) = &mut self.open else { return };
        let closing = async {
            // If this fails, the read that follows gives the reason.
            let _ = open.stream.shutdown().await;
            unasked(&mut open.stream, open.echoed).await
        };
        match timeout(CLOSE_PATIENCE, closing).await {
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

/// Waits until `due`. A timer would take a millisecond even where no wait is due.
async fn rest(due: Instant, period: Duration) {
    if !period.is_zero() {
        sleep_until(due).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::{Clients, Heard, Scripted, expect_end, plan, receive, record, scripted, traffic};
    use tokio::{
        io::{AsyncReadExt, DuplexStream, copy, split},
        time::{advance, pause as pause_clock},
    };

    /// One session under way, and all that a test needs to play its server, its actor and its supervisor.
    struct Bench {
        server: Rc<Scripted>,
        clients: Clients,
        order: watch::Sender<Option<Stop>>,
        heard: Heard,
    }

    /// The clock stands still, except for what the session waits for.
    fn start(traffic: TrafficSettings) -> Bench {
        start_after(0, traffic)
    }

    fn start_after(refusals: u32, traffic: TrafficSettings) -> Bench {
        pause_clock();
        let ((server, clients), (record, heard)) = (scripted(), record());
        server.refusals.set(refusals);
        let order = watch::Sender::new(None);
        actix::spawn(converse(plan(traffic).into(), server.clone(), order.subscribe(), record.into()));
        Bench { server, clients, order, heard }
    }

    fn with_period(messages: u64) -> TrafficSettings {
        TrafficSettings { period: Duration::from_secs(1), ..traffic(messages) }
    }

    async fn send(stream: &mut DuplexStream, bytes: &[u8]) {
        stream.write_all(bytes).await.unwrap();
    }

    /// The clock ticks in milliseconds; a few may pass where nothing is waited for.
    fn took(since: Instant) -> Duration {
        Duration::from_millis(since.elapsed().as_millis() as u64 / 10 * 10)
    }

    const NONE: [u64; 4] = [0; 4];
    const VERIFIED: [u64; 4] = [1, 0, 0, 0];
    const WRONG: [u64; 4] = [0, 1, 0, 0];
    const LOST: [u64; 4] = [0, 0, 1, 0];
    const GIVEN_UP: [u64; 4] = [0, 0, 0, 1];

    #[test]
    fn a_message_has_its_id_and_number_filled_in_and_a_newline_added() {
        for (template, expected) in [
            ("[CLIENT {id}] Message N°{n}", "[CLIENT {n}] Message N°7\n"),
            ("{n}{n} {id}{id}", "77 {n}{n}\n"),
            ("{x} {", "{x} {\n"),
            ("", "\n"),
        ] {
            let traffic = TrafficSettings { message: template.into(), ..traffic(1) };
            let plan = Plan { id: "{n}".into(), ..plan(traffic) };
            assert_eq!(String::from_utf8(plan.message(7)).unwrap(), expected);
        }
    }

    #[actix::test]
    async fn messages_go_one_after_the_other_over_one_stream() {
        let mut bench = start(traffic(3));
        let mut stream = bench.clients.accept().await;
        for message in ["1\n", "2\n", "3\n"] {
            assert_eq!(receive(&mut stream).await, message);
            send(&mut stream, message.as_bytes()).await;
        }
        expect_end(stream).await;
        assert_eq!(bench.heard.end().await, End::Finished);
        assert_eq!(bench.heard.counts(), [3, 0, 0, 0]);
        let verified = "echo verified";
        assert_eq!(bench.heard.events(), ["connected", verified, verified, verified, "connection closed"]);
    }

    #[actix::test]
    async fn an_echo_that_trickles_is_verified() {
        let mut bench = start(TrafficSettings { message: "a message".into(), ..traffic(1) });
        let mut stream = bench.clients.accept().await;
        for byte in receive(&mut stream).await.bytes() {
            send(&mut stream, &[byte]).await;
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(bench.heard.end().await, End::Finished);
        assert_eq!(bench.heard.counts(), VERIFIED);
    }

    #[actix::test]
    async fn a_message_larger_than_all_buffers_is_verified_though_the_server_holds_only_a_little_of_it() {
        let mut bench = start(TrafficSettings { message: "x".repeat(100_000), ..traffic(1) });
        let (mut read, mut write) = split(bench.clients.accept().await);
        assert_eq!(copy(&mut read, &mut write).await.unwrap(), 100_001);
        drop((read, write));
        assert_eq!(bench.heard.end().await, End::Finished);
        assert_eq!(bench.heard.counts(), VERIFIED);
    }

    #[actix::test]
    async fn after_a_wrong_echo_it_reconnects_before_the_next_message() {
        let mut bench = start(traffic(2));
        let mut stream = bench.clients.accept().await;
        receive(&mut stream).await;
        send(&mut stream, b"I\n").await;
        expect_end(stream).await;
        bench.clients.echo(1).await;
        assert_eq!(bench.heard.end().await, End::Finished);
        assert_eq!(bench.heard.counts(), [1, 1, 0, 0]);
        let first = ["connected", "echo wrong", "connection closed"];
        let second = ["reconnecting", "connected", "echo verified", "connection closed"];
        assert_eq!(bench.heard.events(), [&first[..], &second[..]].concat());
    }

    #[actix::test]
    async fn a_wrong_byte_is_reported_before_the_rest_has_come() {
        let mut bench = start(TrafficSettings { timeout: Duration::MAX / 4, ..traffic(1) });
        let mut stream = bench.clients.accept().await;
        send(&mut stream, b"?").await;
        bench.heard.event("echo wrong").await;
        expect_end_after(stream, 2).await;
    }

    /// Waits for the end of a stream. This many bytes may come before.
    async fn expect_end_after(mut stream: DuplexStream, bytes: usize) {
        assert_eq!(stream.read_to_end(&mut Vec::new()).await.unwrap(), bytes);
    }

    #[actix::test]
    async fn more_than_the_echo_in_one_piece_is_wrong() {
        let mut bench = start(traffic(1));
        let mut stream = bench.clients.accept().await;
        send(&mut stream, b"1\n1").await;
        assert_eq!(bench.heard.end().await, End::Finished);
        assert_eq!(bench.heard.counts(), WRONG);
    }

    #[actix::test]
    async fn a_byte_that_comes_during_the_pause_makes_the_last_echo_wrong_before_the_next_message_is_sent() {
        let mut bench = start(with_period(2));
        let mut stream = bench.clients.echo(1).await;
        bench.heard.event("echo verified").await;
        send(&mut stream, b"!").await;
        expect_end(stream).await;
        assert_eq!(bench.heard.counts(), WRONG);
        bench.clients.echo(1).await;
        assert_eq!(bench.heard.end().await, End::Finished);
        assert_eq!(bench.heard.counts(), [1, 1, 0, 0]);
        let first = ["echo wrong", "connection closed"];
        let second = ["reconnecting", "connected", "echo verified", "connection closed"];
        assert_eq!(bench.heard.events(), [&first[..], &second[..]].concat());
    }

    #[actix::test]
    async fn a_byte_behind_the_last_echo_makes_it_wrong() {
        let mut bench = start(traffic(1));
        let mut stream = bench.clients.echo(1).await;
        bench.heard.event("echo verified").await;
        send(&mut stream, b"!").await;
        assert_eq!(bench.heard.end().await, End::Finished);
        assert_eq!(bench.heard.counts(), WRONG);
    }

    #[actix::test]
    async fn a_server_that_keeps_its_end_open_is_not_waited_for_longer_than_a_second() {
        let mut bench = start(traffic(1));
        let _stream = bench.clients.echo(1).await;
        let started = Instant::now();
        assert_eq!(bench.heard.end().await, End::Finished);
        assert_eq!(took(started), CLOSE_PATIENCE);
        assert_eq!(bench.heard.counts(), VERIFIED);
    }

    #[actix::test]
    async fn an_echo_that_is_late_is_lost_at_the_timeout() {
        let mut bench = start(traffic(1));
        let mut stream = bench.clients.accept().await;
        let started = Instant::now();
        send(&mut stream, b"1").await;
        bench.heard.event("echo lost").await;
        assert_eq!(took(started), Duration::from_secs(5));
        assert_eq!(bench.heard.end().await, End::Finished);
        assert_eq!(bench.heard.counts(), LOST);
    }

    #[actix::test]
    async fn an_echo_that_is_late_is_lost_also_if_it_has_come_when_the_client_looks() {
        let mut bench = start(traffic(1));
        let mut stream = bench.clients.accept().await;
        receive(&mut stream).await;
        send(&mut stream, b"1\n").await;
        advance(Duration::from_millis(5001)).await;
        bench.heard.event("echo lost").await;
        assert_eq!(bench.heard.end().await, End::Finished);
        assert_eq!(bench.heard.counts(), LOST);
    }

    #[actix::test]
    async fn an_echo_is_lost_if_the_server_closes_before_all_of_it() {
        let mut bench = start(traffic(1));
        let mut stream = bench.clients.accept().await;
        receive(&mut stream).await;
        send(&mut stream, b"1").await;
        drop(stream);
        assert_eq!(bench.heard.end().await, End::Finished);
        assert_eq!(bench.heard.counts(), LOST);
    }

    #[actix::test]
    async fn what_a_server_sent_before_it_closed_is_verified_though_it_takes_no_more() {
        let mut bench = start(TrafficSettings { message: "x".repeat(1000), ..traffic(1) });
        let mut stream = bench.clients.accept().await;
        send(&mut stream, b"error\n").await;
        drop(stream);
        assert_eq!(bench.heard.end().await, End::Finished);
        assert_eq!(bench.heard.counts(), WRONG);
    }

    #[actix::test]
    async fn a_server_that_closes_during_the_pause_costs_no_message() {
        let mut bench = start(with_period(2));
        drop(bench.clients.echo(1).await);
        drop(bench.clients.echo(1).await);
        assert_eq!(bench.heard.end().await, End::Finished);
        assert_eq!(bench.heard.counts(), [2, 0, 0, 0]);
        assert!(bench.heard.events().contains(&"reconnecting".into()));
    }

    #[actix::test]
    async fn a_server_that_goes_away_and_comes_back_costs_the_outstanding_message_only() {
        let mut bench = start(traffic(3));
        let mut stream = bench.clients.echo(1).await;
        receive(&mut stream).await;
        bench.server.refusals.set(5);
        drop(stream);
        let gone = Instant::now();
        bench.clients.echo(1).await;
        assert_eq!(took(gone), ORDER_PATIENCE + Duration::from_millis(50 + 100 + 200 + 400 + 800));
        assert_eq!(bench.heard.end().await, End::Finished);
        assert_eq!(bench.heard.counts(), [2, 0, 1, 0]);
    }

    #[actix::test]
    async fn a_server_that_has_echoed_nothing_is_not_connected_to_again_at_once() {
        let mut bench = start(traffic(0));
        for _ in 0..3 {
            let mut stream = bench.clients.accept().await;
            send(&mut stream, b"?").await;
            bench.heard.event("connection closed").await;
            let closed = Instant::now();
            stream = bench.clients.accept().await;
            assert_eq!(took(closed), Duration::from_millis(50));
            drop(stream);
        }
    }

    #[actix::test]
    async fn a_server_that_has_echoed_is_connected_to_again_at_once() {
        let mut bench = start(TrafficSettings { reconnect: true, ..traffic(0) });
        drop(bench.clients.echo(1).await);
        bench.heard.event("connection closed").await;
        let closed = Instant::now();
        bench.clients.echo(1).await;
        assert_eq!(took(closed), Duration::ZERO);
    }

    #[actix::test]
    async fn what_is_not_sent_for_want_of_a_server_is_not_attempted() {
        let mut bench = start(with_period(3));
        let stream = bench.clients.echo(1).await;
        bench.heard.event("echo verified").await;
        bench.server.refusals.set(u32::MAX);
        drop(stream);
        let (limit, reason) = (Duration::from_secs(10), "connection refused".into());
        assert_eq!(bench.heard.end().await, End::Unreachable { limit, reason });
        assert_eq!(bench.heard.counts(), VERIFIED);
    }

    #[actix::test]
    async fn a_server_that_is_gone_for_the_rest_of_the_duration_is_unreachable() {
        let mut bench = start(TrafficSettings { duration: Duration::from_secs(3), ..with_period(0) });
        let (stream, started) = (bench.clients.echo(1).await, Instant::now());
        bench.heard.event("echo verified").await;
        bench.server.refusals.set(u32::MAX);
        drop(stream);
        assert!(matches!(bench.heard.end().await, End::Unreachable { .. }));
        assert_eq!(took(started), Duration::from_secs(3));
        assert_eq!(bench.heard.counts(), VERIFIED);
    }

    #[actix::test]
    async fn a_duration_that_ends_before_a_try_has_failed_is_no_failure() {
        let mut bench = start(TrafficSettings { duration: Duration::from_secs(3), ..with_period(0) });
        let stream = bench.clients.echo(1).await;
        bench.heard.event("echo verified").await;
        bench.server.hangs.set(true);
        drop(stream);
        assert_eq!(bench.heard.end().await, End::Finished);
        assert_eq!(bench.heard.counts(), VERIFIED);
    }

    #[actix::test]
    async fn a_message_is_sent_a_period_after_the_last_echo() {
        let mut bench = start(with_period(2));
        let mut stream = bench.clients.accept().await;
        receive(&mut stream).await;
        sleep(Duration::from_secs(3)).await;
        send(&mut stream, b"1\n").await;
        let echoed = Instant::now();
        receive(&mut stream).await;
        assert_eq!(took(echoed), Duration::from_secs(1));
    }

    #[actix::test]
    async fn it_sends_for_as_long_as_it_is_told_from_the_first_connection_on() {
        let endless = TrafficSettings { duration: Duration::from_millis(2500), ..with_period(0) };
        let mut bench = start_after(5, endless);
        let mut stream = bench.clients.echo(3).await;
        let read = stream.read(&mut [0]).await;
        assert_eq!(read.unwrap(), 0);
        drop(stream);
        assert_eq!(bench.heard.end().await, End::Finished);
        assert_eq!(bench.heard.counts(), [3, 0, 0, 0]);
    }

    #[actix::test]
    async fn with_reconnect_every_message_has_a_stream_of_its_own_and_no_warning() {
        let mut bench = start(TrafficSettings { reconnect: true, ..with_period(2) });
        for _ in 0..2 {
            expect_end(bench.clients.echo(1).await).await;
        }
        assert_eq!(bench.heard.end().await, End::Finished);
        assert_eq!(bench.heard.counts(), [2, 0, 0, 0]);
        let each = ["connected", "echo verified", "connection closed"];
        assert_eq!(bench.heard.events(), [each, each].concat());
    }

    #[actix::test]
    async fn with_reconnect_a_byte_behind_an_echo_makes_it_wrong() {
        let mut bench = start(TrafficSettings { reconnect: true, ..traffic(2) });
        let mut stream = bench.clients.echo(1).await;
        bench.heard.event("echo verified").await;
        send(&mut stream, b"!").await;
        drop(bench.clients.echo(1).await);
        assert_eq!(bench.heard.end().await, End::Finished);
        assert_eq!(bench.heard.counts(), [1, 1, 0, 0]);
    }

    #[actix::test]
    async fn a_stop_during_the_pause_ends_the_stream_at_once() {
        let mut bench = start(with_period(0));
        let stream = bench.clients.echo(1).await;
        bench.heard.event("echo verified").await;
        let stopped = Instant::now();
        bench.order.send_replace(Some(Stop::Drain));
        expect_end(stream).await;
        assert_eq!(bench.heard.end().await, End::Stopped);
        assert_eq!(took(stopped), Duration::ZERO);
        assert_eq!(bench.heard.counts(), VERIFIED);
    }

    #[actix::test]
    async fn a_stop_during_the_connecting_ends_it_at_once() {
        let mut bench = start_after(u32::MAX, traffic(1));
        bench.heard.event("connect failed").await;
        bench.order.send_replace(Some(Stop::Drain));
        assert_eq!(bench.heard.end().await, End::Stopped);
        assert_eq!(bench.heard.counts(), NONE);
    }

    /// A session whose message is out when it is told to stop.
    async fn stopped_with_a_message_out(timeout: Duration) -> (Bench, DuplexStream) {
        let mut bench = start(TrafficSettings { timeout, ..traffic(0) });
        let mut stream = bench.clients.accept().await;
        receive(&mut stream).await;
        bench.order.send_replace(Some(Stop::Drain));
        (bench, stream)
    }

    #[actix::test]
    async fn an_echo_that_comes_soon_after_a_stop_is_verified() {
        let (mut bench, mut stream) = stopped_with_a_message_out(Duration::from_secs(5)).await;
        sleep(STOP_PATIENCE / 2).await;
        send(&mut stream, b"1\n").await;
        expect_end(stream).await;
        assert_eq!(bench.heard.end().await, End::Stopped);
        assert_eq!(bench.heard.counts(), VERIFIED);
    }

    #[actix::test]
    async fn an_echo_that_comes_wrong_after_a_stop_is_wrong() {
        let (mut bench, mut stream) = stopped_with_a_message_out(Duration::from_secs(5)).await;
        send(&mut stream, b"2\n").await;
        assert_eq!(bench.heard.end().await, End::Stopped);
        assert_eq!(bench.heard.counts(), WRONG);
    }

    #[actix::test]
    async fn an_echo_that_does_not_come_within_a_second_of_a_stop_is_given_up() {
        let (mut bench, stream) = stopped_with_a_message_out(Duration::from_secs(5)).await;
        let stopped = Instant::now();
        assert_eq!(bench.heard.end().await, End::Stopped);
        assert_eq!(took(stopped), STOP_PATIENCE);
        assert_eq!(bench.heard.counts(), GIVEN_UP);
        assert_eq!(bench.heard.events(), ["connected", "echo given up", "connection closed"]);
        expect_end(stream).await;
    }

    #[actix::test]
    async fn a_stop_waits_no_longer_for_an_echo_than_its_own_timeout() {
        let (mut bench, _stream) = stopped_with_a_message_out(STOP_PATIENCE / 4).await;
        let stopped = Instant::now();
        assert_eq!(bench.heard.end().await, End::Stopped);
        assert_eq!(took(stopped), STOP_PATIENCE / 4);
        assert_eq!(bench.heard.counts(), GIVEN_UP);
    }

    #[actix::test]
    async fn an_echo_that_a_server_owes_is_given_up_though_its_end_is_heard_before_the_order_to_stop() {
        let mut bench = start(traffic(0));
        let mut stream = bench.clients.accept().await;
        receive(&mut stream).await;
        drop(stream);
        sleep(ORDER_PATIENCE / 2).await;
        let stopped = Instant::now();
        bench.order.send_replace(Some(Stop::Drain));
        assert_eq!(bench.heard.end().await, End::Stopped);
        assert_eq!(took(stopped), Duration::ZERO);
        assert_eq!(bench.heard.counts(), GIVEN_UP);
        assert_eq!(bench.heard.events(), ["connected", "echo given up", "connection closed"]);
    }

    #[actix::test]
    async fn an_echo_that_a_server_owes_when_both_are_stopped_is_given_up() {
        let (mut bench, stream) = stopped_with_a_message_out(Duration::from_secs(5)).await;
        drop(stream);
        assert_eq!(bench.heard.end().await, End::Stopped);
        assert_eq!(bench.heard.counts(), GIVEN_UP);
    }
}
