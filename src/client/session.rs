//! The data plane of one of the client's connections: connect, send, verify, wait, and once more.
//!
//! It is ordinary async code over any stream. It hears of its [`Order`] and reports everything to its
//! [`Record`]. Messages go out when the timetable says so, or at the connection's own pace if there is none.

use crate::{
    client::{
        alarm::Until,
        connect::{Connect, FIRST_PAUSE, GaveUp, LONGEST_PAUSE, MEASURING_PAUSE, keep_trying, no_answer},
        exchange::{Failure, Pipeline, unasked},
        message::Content,
        order::Order,
        record::{Closed, End, Message, Record},
        run::Pace,
        tally::Lost,
    },
    decisions::stop::Stop,
    settings::TrafficSettings,
};
use futures_util::FutureExt;
use std::{
    cell::RefCell,
    collections::VecDeque,
    future::{pending, poll_fn},
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    ops::ControlFlow,
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
    thread,
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, Sleep, sleep, sleep_until, timeout},
};

/// How long a stop waits for the outstanding echoes, unless their own timeout ends before.
const STOP_PATIENCE: Duration = Duration::from_secs(1);
/// How long the client delays counting an echo that is lost with its stream: the order to stop may be under way.
const ORDER_PATIENCE: Duration = Duration::from_millis(100);
/// How long a close waits for the server's FIN, which shows that no more bytes come.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

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
    fn content(&self, connection: usize) -> Content {
        let TrafficSettings { size, message, .. } = &self.traffic;
        match *size {
            0 => Content::text(message, &self.id),
            size => Content::binary(&self.id, connection, size),
        }
    }

    /// How many messages may be out at once on a stream.
    fn pipeline(&self) -> usize {
        if self.traffic.reconnect { 1 } else { self.traffic.pipeline }
    }
}

/// Runs a ConnectionActor's session from its start to its end. A panic ends here. An abort drops the session with its
/// stream, at any `await`.
pub(crate) async fn converse<C: Connect>(plan: Rc<Plan>, server: Rc<C>, order: Rc<Order>, record: Rc<Record>) {
    let both = async {
        let (unsettled, mut end) = (Unsettled::default(), None);
        let mut session = pin!(Session::new(&plan, &*server, order.clone(), record.clone(), &unsettled).run());
        // Each order wakes this task, because it is waited for below.
        poll_fn(|cx| {
            if end.is_none()
                && let Poll::Ready(over) = session.as_mut().poll(cx)
            {
                end = Some(over);
            }
            ready!(unsettled.poll(&order, cx));
            end.take().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    };
    let end = tokio::select! {
        biased;
        () = order.comes(Stop::Abort) => End::Forced,
        end = AssertUnwindSafe(both).catch_unwind() => end.unwrap_or(End::Crashed),
    };
    record.end(end);
}

/// What waits for an order to stop, the oldest first. If client and server are stopped at the same moment, either the end of the
/// server's stream or the order to stop comes first. An echo that is lost during a stop is not owed, so the client gives the
/// order time to arrive. Meanwhile the session goes on, because the server must not be charged with this wait.
#[derive(Default)]
struct Unsettled(RefCell<VecDeque<Ended>>);

/// What was out on a stream that the server has ended.
struct Ended {
    out: Out,
    reason: Lost,
    patience: Pin<Box<Sleep>>,
}

impl Unsettled {
    fn add(&self, out: Out, reason: Lost) {
        self.0.borrow_mut().push_back(Ended { out, reason, patience: Box::pin(sleep(ORDER_PATIENCE)) });
    }

    /// Counts what has waited for long enough. It is ready when nothing is left.
    fn poll(&self, order: &Order, cx: &mut Context<'_>) -> Poll<()> {
        let mut waiting = self.0.borrow_mut();
        while let Some(Ended { patience, .. }) = waiting.front_mut() {
            let stopped = order.is(Stop::Drain);
            if !stopped {
                ready!(patience.as_mut().poll(cx));
            }
            let Some(Ended { out, reason, .. }) = waiting.pop_front() else { break };
            match stopped {
                true => drop(out),
                false => out.lost(reason),
            }
        }
        Poll::Ready(())
    }
}

/// A stream, what is out on it, and its record, which is written once the stream is closed.
struct Open<S> {
    // Dropped in this order.
    out: Out,
    stream: S,
    closing: Closing,
    /// The last message whose echo came.
    last: Option<Message>,
    /// When all that was sent had been taken by the system.
    sent: Instant,
    /// When it is to be replaced.
    renewal: Option<Instant>,
}

impl<S> Open<S> {
    fn close(mut self, reason: Closed) {
        self.closing.reason = Some(reason);
    }
}

/// The messages that are out on a stream. If it is dropped, they are given up.
struct Out {
    pipeline: Pipeline<Message>,
    record: Rc<Record>,
    /// When the attempt of the first one began and why it has failed, if the outages know it already.
    away: Option<(Instant, Lost)>,
}

impl Out {
    /// The server is away from now on, whenever the messages are counted.
    fn away(&mut self, reason: Lost) {
        self.away = self.pipeline.first().map(|first| (first.sent, reason));
        if let Some((begun, reason)) = self.away {
            self.record.away(begun, reason);
        }
    }

    /// The first is lost for this reason, and those behind it are abandoned.
    fn lost(mut self, reason: Lost) {
        // A message that ran out of time did so from when it was due. It may have waited for a server that was away.
        let begun = |message: &Message| if reason == Lost::Timeout { message.due } else { message.sent };
        let is_known = self.away.take().is_some();
        if let Some(message) = self.pipeline.pop() {
            self.record.lost(&message, (!is_known).then(|| begun(&message)), reason);
        }
        while let Some(message) = self.pipeline.pop() {
            self.record.lost(&message, Some(begun(&message)), Lost::Abandoned);
        }
    }
}

impl Drop for Out {
    /// A message whose outcome is not known is given up.
    fn drop(&mut self) {
        if let Some((begun, reason)) = self.away {
            self.record.not_away(begun, reason);
        }
        while let Some(message) = self.pipeline.pop() {
            self.record.given_up(message.n, message.length);
        }
    }
}

struct Closing {
    record: Rc<Record>,
    server: SocketAddr,
    /// Echoes that came over it.
    verified: u64,
    reason: Option<Closed>,
}

impl Drop for Closing {
    fn drop(&mut self) {
        let cut_off = if thread::panicking() { Closed::Crashed } else { Closed::Forced };
        self.record.closed(self.reason.unwrap_or(cut_off), self.server, self.verified);
    }
}

/// What ends the talk over one stream.
enum Talked {
    /// The session is over.
    Over(End),
    /// The next message gets another stream.
    Enough,
    /// The stream is of no more use.
    Failed(Failure),
}

struct Session<'a, C: Connect> {
    plan: &'a Plan,
    server: &'a C,
    order: Rc<Order>,
    /// When the session heard of the order to stop.
    stopped: Option<Instant>,
    record: Rc<Record>,
    unsettled: &'a Unsettled,
    content: Content,
    open: Option<Open<C::Stream>>,
    /// The number of the last message, counted from 1.
    n: u64,
    /// Messages that a server closed on without a byte of their echo, and that are sent again.
    again: VecDeque<Message>,
    /// From when on there is room for each further message.
    rooms: VecDeque<Instant>,
    /// With a rate, T0.
    t0: Option<Instant>,
    /// When `duration` ends, which begins with the first connection; with a rate, when the last message times out.
    until: Option<Instant>,
    /// The first and the last of the messages that were not sent in time and of which the log has not heard.
    unsent: Option<(u64, u64)>,
    /// Wakes the session at the next of its own times.
    timer: Pin<Box<Sleep>>,
    /// Wakes the session when the next message is due.
    alarm: Option<Until>,
    /// Whether the last stream ended otherwise than planned.
    broken: bool,
    /// When the last stream was made, if it has brought no echo. The client then pauses: otherwise it would connect thousands
    /// of times a second to a server that accepts and closes at once.
    barren: Option<Instant>,
}

impl<'a, C: Connect> Session<'a, C> {
    fn new(plan: &'a Plan, server: &'a C, order: Rc<Order>, record: Rc<Record>, unsettled: &'a Unsettled) -> Self {
        let now = Instant::now();
        Self {
            plan,
            server,
            order,
            stopped: None,
            content: plan.content(record.connection),
            record,
            unsettled,
            open: None,
            n: 0,
            again: VecDeque::new(),
            rooms: vec![now; plan.pipeline()].into(),
            t0: None,
            until: None,
            unsent: None,
            timer: Box::pin(sleep_until(now)),
            alarm: None,
            broken: false,
            barren: None,
        }
    }

    async fn run(mut self) -> End {
        let end = loop {
            if let ControlFlow::Break(end) = self.round().await {
                break end;
            }
        };
        self.close(if end == End::Stopped { Closed::Stopped } else { Closed::Done }).await;
        self.leave(&end);
        end
    }

    /// Talks over one stream, as long as it is of use.
    async fn round(&mut self) -> ControlFlow<End> {
        if self.open.is_none() {
            self.rest().await?;
            self.connect().await?;
        }
        match poll_fn(|cx| self.poll_talk(cx)).await {
            Talked::Over(end) => return ControlFlow::Break(end),
            Talked::Enough => {
                self.barren = None;
                self.close(Closed::Done).await;
            }
            Talked::Failed(failure) => self.failed(failure),
        }
        ControlFlow::Continue(())
    }

    fn pace(&self) -> Option<&Pace> {
        self.record.run.pace.as_ref()
    }

    /// When the message of this number is due, if there is a rate.
    fn due(&self, n: u64) -> Option<Instant> {
        Some(self.t0? + self.pace()?.timetable.due(n, self.record.connection)?)
    }

    /// Whether no message is left to be sent.
    fn all_sent(&self) -> bool {
        let messages = self.plan.traffic.messages;
        let at_end = messages != 0 && self.n >= messages || self.t0.is_some() && self.due(self.n + 1).is_none();
        at_end && self.again.is_empty()
    }

    /// When the next message is to be sent: when it is due and there is room for it. One that is sent again waits for no
    /// period.
    fn next(&self) -> Option<Instant> {
        let room = *self.rooms.front()?;
        if let Some(message) = self.again.front() {
            return Some(message.sent);
        }
        match self.pace() {
            _ if self.all_sent() => None,
            Some(_) => self.due(self.n + 1).map(|due| due.max(room)),
            None => Some(room),
        }
    }

    /// Waits until another stream is wanted.
    async fn rest(&mut self) -> ControlFlow<End> {
        self.expire(Instant::now());
        if self.all_sent() {
            return ControlFlow::Break(End::Finished);
        }
        // With a rate a stream waits for the messages, unless each message is to have its own.
        let wanted = if self.pace().is_none() || self.plan.traffic.reconnect { self.next() } else { None };
        let waiting = async {
            match (wanted, self.pace()) {
                (Some(wanted), Some(pace)) => pace.alarm.until(wanted).await,
                // A timer would take a millisecond even where no wait is due.
                (Some(wanted), None) if wanted > Instant::now() => sleep_until(wanted).await,
                _ => {}
            }
        };
        tokio::select! {
            biased;
            () = self.order.comes(Stop::Drain) => ControlFlow::Break(End::Stopped),
            () = reached(self.until.filter(|_| self.pace().is_none())) => ControlFlow::Break(End::Finished),
            () = waiting => ControlFlow::Continue(()),
        }
    }

    async fn connect(&mut self) -> ControlFlow<End> {
        if self.broken {
            self.record.reconnecting();
        }
        let now = Instant::now();
        let begun = self.barren.map_or(now, |made| now.max(made + FIRST_PAUSE));
        let (stream, server, try_begun) = loop {
            match self.try_to_connect(begun).await? {
                Ok(connected) => break connected,
                Err(gave_up) => self.gave_up(begun, gave_up).await?,
            }
        };
        // What came too late until now has waited for this connection.
        self.count_unsent(Instant::now());
        self.record.connected(server, try_begun, self.broken);
        let now = Instant::now();
        (self.broken, self.barren) = (false, Some(now));
        self.rooms.iter_mut().for_each(|room| *room = now.max(*room));
        let renewal = self.renewal(now);
        let closing = Closing { record: self.record.clone(), server, verified: 0, reason: None };
        let out = Out { pipeline: Pipeline::default(), record: self.record.clone(), away: None };
        self.open = Some(Open { out, stream, closing, last: None, sent: now, renewal });
        if self.pace().is_some() {
            return self.wait_for_t0().await;
        }
        let duration = self.plan.traffic.duration;
        self.until = self.until.or((!duration.is_zero()).then(|| now + duration));
        ControlFlow::Continue(())
    }

    /// Tries from `begun` on until a connection is made or the deadline has come.
    async fn try_to_connect(
        &mut self,
        begun: Instant,
    ) -> ControlFlow<End, Result<(C::Stream, SocketAddr, Instant), GaveUp>> {
        let (order, server, deadline) = (self.order.clone(), self.server, self.deadline(begun));
        let record = self.record.clone();
        let is_measuring = self.pace().is_some() || self.record.run.tally.borrow().verified > 0;
        let longest_pause = if is_measuring { MEASURING_PAUSE } else { LONGEST_PAUSE };
        let connecting = async {
            // A timer would take a millisecond even where no wait is due.
            if begun > Instant::now() {
                sleep_until(begun.min(deadline)).await;
            }
            let failed = |error: &_, tried, is_first| {
                self.record.not_connected(error, tried, is_first);
                self.look_for_t0();
                self.count_unsent(Instant::now());
                self.deadline(begun)
            };
            keep_trying(server, deadline, longest_pause, |address, error| record.passed_over(address, error), failed)
                .await
        };
        tokio::select! {
            biased;
            () = order.comes(Stop::Drain) => ControlFlow::Break(End::Stopped),
            connected = connecting => ControlFlow::Continue(connected),
        }
    }

    /// Until when tries that began at `begun` go on. A timetable that has an end goes on without a server: nothing moves it.
    fn deadline(&self, begun: Instant) -> Instant {
        let latest = begun + self.plan.connect_timeout;
        match self.until {
            Some(until) if self.pace().is_some() => until,
            Some(until) => until.min(latest),
            None => latest,
        }
    }

    /// Ends the session, unless it now knows of T0 and of a timetable that goes on.
    async fn gave_up(&mut self, begun: Instant, GaveUp { error, cut }: GaveUp) -> ControlFlow<End> {
        // A duration that ends before a try has failed is no failure. A timetable that ends before a try has begun is none.
        let is_known = error.is_some() || self.pace().is_some() && cut.is_some();
        if !is_known && self.until == Some(self.deadline(begun)) {
            return ControlFlow::Break(End::Finished);
        }
        // This also counts when the time is over: the missing server is what ended the session.
        if let Some(tried) = cut {
            self.record.not_connected(&no_answer(), tried, error.is_none());
        }
        self.wait_for_t0().await?;
        let deadline = self.deadline(begun);
        if Instant::now() < deadline {
            return ControlFlow::Continue(());
        }
        let limit = Duration::from_millis((deadline - begun).as_millis() as u64);
        let reason = error.unwrap_or_else(no_answer).to_string();
        ControlFlow::Break(End::Unreachable { limit, reason })
    }

    /// When a stream that was made now is to be replaced. Not all at the same time.
    fn renewal(&self, now: Instant) -> Option<Instant> {
        let renew = self.plan.traffic.renew;
        let share = RandomState::new().hash_one(self.n) as f64 / u64::MAX as f64;
        (!renew.is_zero()).then(|| now + renew.mul_f64(1.0 - share / 4.0))
    }

    /// With a rate, waits for T0.
    async fn wait_for_t0(&mut self) -> ControlFlow<End> {
        if self.pace().is_some() {
            tokio::select! {
                biased;
                () = self.order.comes(Stop::Drain) => return ControlFlow::Break(End::Stopped),
                _ = self.record.run.t0() => {}
            }
            self.look_for_t0();
        }
        ControlFlow::Continue(())
    }

    /// With a rate, takes T0 over as soon as there is one, and finds out when the session ends.
    fn look_for_t0(&mut self) {
        let TrafficSettings { messages, timeout, .. } = self.plan.traffic;
        let Some((pace, t0)) = self.pace().zip(self.record.run.t0_if_begun()) else { return };
        // The last messages are due before the end, and may be sent until they time out.
        let until = pace.timetable.length(messages).map(|length| t0 + length + timeout);
        (self.t0, self.until) = (Some(t0), until);
    }

    /// Sends and verifies until the stream is of no more use. Each turn takes what has come, sends what is due, and then waits
    /// for what happens next.
    fn poll_talk(&mut self, cx: &mut Context<'_>) -> Poll<Talked> {
        // `converse` waits for orders: each of them wakes this task.
        if self.stopped.is_none() && self.order.is(Stop::Drain) {
            self.stopped = Some(Instant::now());
        }
        loop {
            match self.is_idle() {
                true if self.all_sent() => return Poll::Ready(Talked::Over(End::Finished)),
                true if self.stopped.is_some() => return Poll::Ready(Talked::Over(End::Stopped)),
                _ => {}
            }
            match self.poll_receive(cx) {
                Poll::Ready(None) => continue,
                Poll::Ready(Some(talked)) => return Poll::Ready(talked),
                Poll::Pending => {}
            }
            let now = Instant::now();
            self.expire(now);
            let is_over = self.pace().is_none() && self.until.is_some_and(|until| until <= now);
            let is_old = self.open.as_ref().is_some_and(|open| open.renewal.is_some_and(|renewal| renewal <= now));
            match self.is_idle() {
                // The last messages may just have been counted as lost.
                true if is_over || self.all_sent() => return Poll::Ready(Talked::Over(End::Finished)),
                true if is_old => {
                    self.record.renewed();
                    return Poll::Ready(Talked::Enough);
                }
                _ => {}
            }
            let next = self.send(self.stopped.is_none() && !is_over && !is_old, now, cx);
            match self.poll_wait(now, next, cx) {
                Poll::Ready(None) => {}
                Poll::Ready(Some(talked)) => return Poll::Ready(talked),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.open.as_ref().is_none_or(|open| open.out.pipeline.is_empty())
    }

    /// Takes the echoes that have come.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Option<Talked>> {
        let Some(open) = &mut self.open else { return Poll::Pending };
        let received = ready!(open.out.pipeline.poll_receive(&mut open.stream, cx));
        let (back, TrafficSettings { timeout, period, reconnect, .. }) = (Instant::now(), &self.plan.traffic);
        let period = if self.record.run.pace.is_some() { Duration::ZERO } else { *period };
        let is_wrong = matches!(received, Err(Failure::Wrong(_)));
        while open.out.pipeline.is_back() {
            // After a stall of this process the echo and its timeout can come together.
            let is_late = open.out.pipeline.first().is_some_and(|message| back > message.due + *timeout);
            if is_late && !is_wrong {
                return Poll::Ready(Some(Talked::Failed(Failure::Lost(Lost::Timeout))));
            }
            let Some(message) = open.out.pipeline.pop() else { break };
            if is_late {
                // A wrong byte behind it is told of too.
                self.record.lost(&message, Some(message.due), Lost::Timeout);
                continue;
            }
            self.record.verified(&message, back);
            open.closing.verified += 1;
            open.last = Some(message);
            self.rooms.push_back(back + period);
            self.barren = None;
        }
        Poll::Ready(match received {
            Err(failure) => Some(Talked::Failed(failure)),
            Ok(()) if *reconnect && open.out.pipeline.is_empty() => Some(Talked::Enough),
            Ok(()) => None,
        })
    }

    /// Starts the messages that are due and have room, if it may, and sends as much as the stream takes. Gives when the next
    /// one is to be started.
    fn send(&mut self, may_start: bool, now: Instant, cx: &mut Context<'_>) -> Option<Instant> {
        let open = self.open.as_mut()?;
        if !open.out.pipeline.is_sent() {
            open.out.pipeline.poll_send(&mut open.stream, cx);
            open.sent = now;
        }
        let mut next = None;
        // While the server takes no more there is no room, however few messages are out.
        if may_start && open.out.pipeline.is_sent() {
            next = self.next();
            while next.is_some_and(|next| next <= now) {
                self.start(now);
                next = self.next();
            }
        }
        let open = self.open.as_mut()?;
        open.out.pipeline.poll_send(&mut open.stream, cx);
        next
    }

    fn start(&mut self, now: Instant) {
        let due = self.due(self.n + 1).unwrap_or(now);
        let (Some(open), Some(room)) = (&mut self.open, self.rooms.pop_front()) else { return };
        let message = match self.again.pop_front() {
            Some(message) => {
                self.record.resent(&message);
                Message { sent: now, resent: message.resent + 1, ..message }
            }
            None => {
                self.n += 1;
                let (room, length) = (room.max(open.sent), self.content.length(self.n) as u64);
                let message = Message { n: self.n, due, room, first: now, sent: now, resent: 0, length };
                self.record.sent(&message);
                message
            }
        };
        open.out.pipeline.push(message, |bytes| self.content.write(message.n, bytes));
    }

    /// Counts the messages as lost that could not be sent in time, and tells the log of them.
    fn expire(&mut self, now: Instant) {
        self.count_unsent(now);
        self.tell_unsent();
    }

    fn tell_unsent(&mut self) {
        if let Some((first, last)) = self.unsent.take() {
            self.record.tell_unsent(first, last);
        }
    }

    /// The next message is not sent.
    fn skip(&mut self, due: Instant) {
        self.n += 1;
        self.record.unsent(due);
        self.unsent.get_or_insert((self.n, self.n)).1 = self.n;
    }

    fn count_unsent(&mut self, now: Instant) {
        let timeout = self.plan.traffic.timeout;
        while let Some(message) = self.again.pop_front_if(|message| now > message.due + timeout) {
            self.record.lost(&message, Some(message.sent), Lost::Closed);
        }
        while let Some(due) = self.due(self.n + 1).filter(|due| now > *due + timeout && !self.all_sent()) {
            self.skip(due);
        }
    }

    /// Waits for the next of the session's own times. What comes over the stream wakes it too.
    fn poll_wait(&mut self, now: Instant, next: Option<Instant>, cx: &mut Context<'_>) -> Poll<Option<Talked>> {
        let Some(open) = &self.open else { return Poll::Pending };
        let pace = self.record.run.pace.as_ref();
        let mut wake = next.filter(|_| pace.is_none());
        match open.out.pipeline.first() {
            Some(first) => {
                let limit = first.due + self.plan.traffic.timeout;
                let limit = self.stopped.map_or(limit, |stopped| limit.min(stopped + STOP_PATIENCE));
                if limit <= now {
                    return Poll::Ready(Some(Talked::Failed(Failure::Lost(Lost::Timeout))));
                }
                wake = earliest(wake, Some(limit));
            }
            None => {
                wake = earliest(wake, open.renewal);
                wake = earliest(wake, self.until.filter(|_| pace.is_none()));
            }
        }
        if let (Some(next), Some(pace)) = (next, pace) {
            let is_set = self.alarm.as_ref().is_some_and(|alarm| alarm.at() == next);
            let alarm = self.alarm.take().filter(|_| is_set).unwrap_or_else(|| pace.alarm.until(next));
            if Pin::new(self.alarm.insert(alarm)).poll(cx).is_ready() {
                return Poll::Ready(None);
            }
        }
        let Some(wake) = wake else { return Poll::Pending };
        // A timer that goes off too early costs less than one that is set for every message, and one that was polled since it
        // was set need not be polled again.
        let set = self.timer.deadline();
        if now < set && set <= wake {
            return Poll::Pending;
        }
        self.timer.as_mut().reset(wake);
        self.timer.as_mut().poll(cx).map(|()| None)
    }

    /// The server has ended the connection as it should be ended, so a message without one byte of its echo was not echoed.
    fn send_again(&mut self) {
        let TrafficSettings { resend, .. } = self.plan.traffic;
        let Some(open) = self.open.as_mut().filter(|_| resend > 0) else { return };
        for message in open.out.pipeline.untouched().rev() {
            if message.resent < resend {
                self.again.push_front(message);
            } else {
                self.record.lost(&message, Some(message.sent), Lost::Closed);
            }
        }
    }

    /// Ends a stream that is of no more use, and counts what was out on it, at once or later: see [`Unsettled`].
    fn failed(&mut self, failure: Failure) {
        if failure == Failure::Lost(Lost::Closed) && self.stopped.is_none() {
            self.send_again();
        }
        let Some(Open { mut out, stream, mut closing, last, .. }) = self.open.take() else { return };
        self.broken = true;
        let now = Instant::now();
        let period = if self.pace().is_some() { Duration::ZERO } else { self.plan.traffic.period };
        self.rooms.resize(self.plan.pipeline(), now + period);
        // During a stop the client cannot tell whose fault a loss is: a server that stops at the same time owes no echo.
        let stopped = self.order.is(Stop::Drain);
        let reason = match failure {
            Failure::Wrong(difference) => {
                match (out.pipeline.pop(), last) {
                    (Some(message), _) => self.record.wrong(message.n, message.due, message.length, &difference),
                    (None, Some(last)) => {
                        self.record.wrong_after_all(&last, &difference);
                        closing.verified -= 1;
                    }
                    // The server has spoken first.
                    (None, None) => {
                        self.n += 1;
                        self.record.wrong(self.n, self.due(self.n).unwrap_or(now), 0, &difference);
                    }
                }
                match stopped {
                    true => drop(out),
                    false => out.lost(Lost::Abandoned),
                }
                Closed::Wrong
            }
            Failure::Lost(_) if stopped && !out.pipeline.is_empty() => {
                drop(out);
                Closed::Stopped
            }
            Failure::Lost(reason @ (Lost::Closed | Lost::Reset)) if !out.pipeline.is_empty() => {
                out.away(reason);
                self.unsettled.add(out, reason);
                Closed::Lost(reason)
            }
            Failure::Lost(reason) => {
                out.lost(reason);
                Closed::Lost(reason)
            }
        };
        drop(stream);
        closing.reason = Some(reason);
    }

    /// Ends the stream, once it has shown that no byte comes behind the last echo.
    async fn close(&mut self, reason: Closed) {
        let Some(open) = &mut self.open else { return };
        let closing = async {
            // If this fails, the read that follows gives the reason.
            let _ = open.stream.shutdown().await;
            unasked(&mut open.stream, open.out.pipeline.echoed()).await
        };
        match timeout(CLOSE_PATIENCE, closing).await {
            Ok(failure @ Failure::Wrong(_)) => self.failed(failure),
            Ok(Failure::Lost(_)) | Err(_) => {
                if let Some(open) = self.open.take() {
                    open.close(reason);
                }
            }
        }
    }

    /// Counts the messages that were due and are not out; after an order to stop, those that were due when it came. Only a server
    /// out of reach is to blame for them. One that waits to be sent again was lost, unless the order came meanwhile.
    fn leave(&mut self, end: &End) {
        let (now, is_lost) = (self.stopped.unwrap_or_else(Instant::now), matches!(end, End::Unreachable { .. }));
        self.expire(now);
        while let Some(message) = self.again.pop_front() {
            match end {
                End::Stopped => self.record.given_up(message.n, message.length),
                _ => self.record.lost(&message, Some(message.sent), Lost::Closed),
            }
        }
        while let Some(due) = self.due(self.n + 1).filter(|due| *due <= now && !self.all_sent()) {
            if is_lost {
                self.skip(due);
            } else {
                self.n += 1;
                self.record.given_up(self.n, 0);
            }
        }
        self.tell_unsent();
    }
}

impl<C: Connect> Drop for Session<'_, C> {
    /// A message that was to be sent again is given up.
    fn drop(&mut self) {
        self.again.drain(..).for_each(|message| self.record.given_up(message.n, message.length));
    }
}

fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

async fn reached(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{
        report::Bytes,
        testing::{Clients, Heard, Scripted, expect_end, plan, receive, record, scripted, traffic},
    };
    use std::io;
    use tokio::{
        io::{AsyncReadExt, DuplexStream, copy, split},
        time::{advance, pause as pause_clock, resume as resume_clock},
    };

    /// One session under way, and all that a test needs to play its server, its actor and its supervisor.
    struct Bench {
        server: Rc<Scripted>,
        clients: Clients,
        order: Rc<Order>,
        heard: Heard,
    }

    /// The clock stands still, except for what the session waits for.
    fn start(traffic: TrafficSettings) -> Bench {
        start_after(0, traffic)
    }

    fn start_after(refusals: u32, traffic: TrafficSettings) -> Bench {
        start_with(plan(traffic), refusals)
    }

    fn start_with(plan: Plan, refusals: u32) -> Bench {
        pause_clock();
        let ((server, clients), (record, heard)) = (scripted(), record(&plan.traffic));
        server.refusals.set(refusals);
        let order = Rc::new(Order::default());
        actix::spawn(converse(plan.into(), server.clone(), order.clone(), record.into()));
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
        let tally = bench.heard.run.tally.borrow();
        assert_eq!(tally.servers.values().map(|served| served.verified).sum::<u64>(), 0);
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
    async fn a_wrong_echo_behind_one_that_is_late_is_wrong() {
        let mut bench = start(pipelined(2));
        let mut stream = bench.clients.accept().await;
        receive(&mut stream).await;
        receive(&mut stream).await;
        send(&mut stream, b"1\n?").await;
        advance(Duration::from_millis(5001)).await;
        assert_eq!(bench.heard.end().await, End::Finished);
        assert_eq!(bench.heard.counts(), [0, 1, 1, 0]);
        assert_eq!(bench.heard.run.tally.borrow().lost_by.timeout, 1);
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
        assert_eq!(took(gone), FIRST_PAUSE + 4 * MEASURING_PAUSE);
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
        bench.order.give(Stop::Drain);
        expect_end(stream).await;
        assert_eq!(bench.heard.end().await, End::Stopped);
        assert_eq!(took(stopped), Duration::ZERO);
        assert_eq!(bench.heard.counts(), VERIFIED);
    }

    #[actix::test]
    async fn a_stop_during_the_connecting_ends_it_at_once() {
        let mut bench = start_after(u32::MAX, traffic(1));
        bench.heard.event("connect failed").await;
        bench.order.give(Stop::Drain);
        assert_eq!(bench.heard.end().await, End::Stopped);
        assert_eq!(bench.heard.counts(), NONE);
    }

    fn bytes(bench: &Bench) -> Bytes {
        bench.heard.run.tally.borrow().bytes
    }

    #[actix::test]
    async fn the_bytes_of_a_message_that_went_out_count_with_its_outcome() {
        for (server_says, expected) in [
            ("", Bytes { lost: 2, ..Bytes::default() }),
            ("1", Bytes { lost: 2, ..Bytes::default() }),
            ("1\n", Bytes { verified: 2, ..Bytes::default() }),
            ("2", Bytes { wrong: 2, ..Bytes::default() }),
            ("1\n?", Bytes { wrong: 2, ..Bytes::default() }),
        ] {
            let mut bench = start(traffic(1));
            let mut stream = bench.clients.accept().await;
            receive(&mut stream).await;
            send(&mut stream, server_says.as_bytes()).await;
            drop(stream);
            bench.heard.end().await;
            assert_eq!(bytes(&bench), expected, "{server_says:?}");
            resume_clock();
        }
        let (mut bench, _stream) = stopped_with_a_message_out(Duration::from_secs(5)).await;
        assert_eq!(bench.heard.end().await, End::Stopped);
        assert_eq!(bytes(&bench), Bytes { given_up: 2, ..Bytes::default() });
    }

    /// A session whose message is out when it is told to stop.
    async fn stopped_with_a_message_out(timeout: Duration) -> (Bench, DuplexStream) {
        let mut bench = start(TrafficSettings { timeout, ..traffic(0) });
        let mut stream = bench.clients.accept().await;
        receive(&mut stream).await;
        bench.order.give(Stop::Drain);
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
        bench.heard.event("reconnecting").await;
        let stopped = Instant::now();
        bench.order.give(Stop::Drain);
        assert_eq!(bench.heard.end().await, End::Stopped);
        assert_eq!(took(stopped), Duration::ZERO);
        assert_eq!(bench.heard.counts(), GIVEN_UP);
        assert_eq!(bench.heard.events(), ["echo given up"]);
        assert_eq!(outages(&bench), 0);
    }

    #[actix::test]
    async fn a_server_that_is_silent_and_then_ends_the_stream_was_away_until_the_next_echo() {
        let mut bench = start(traffic(3));
        let mut stream = bench.clients.echo(1).await;
        receive(&mut stream).await;
        let silent = Instant::now();
        sleep(Duration::from_secs(3)).await;
        drop(stream);
        expect_end(bench.clients.echo(1).await).await;
        let silence = silent.elapsed();
        assert_eq!(bench.heard.end().await, End::Finished);
        assert_eq!(outages(&bench), 1);
        let tally = bench.heard.run.tally.borrow();
        let outage = &tally.outages.windows[0];
        assert_eq!((outage.length(), outage.failed, outage.why()), (silence, 1, "closed"));
    }

    #[actix::test]
    async fn an_echo_that_a_server_owes_to_the_end_holds_up_no_other_message_and_counts_when_no_order_to_stop_comes() {
        let mut bench = start(traffic(3));
        let mut stream = bench.clients.echo(1).await;
        receive(&mut stream).await;
        let gone = Instant::now();
        drop(stream);
        expect_end(bench.clients.echo(1).await).await;
        assert_eq!((took(gone), bench.heard.counts()), (Duration::ZERO, [2, 0, 0, 0]));
        assert_eq!(bench.heard.end().await, End::Finished);
        assert_eq!((took(gone), bench.heard.counts()), (ORDER_PATIENCE, [2, 0, 1, 0]));
        let sent = ["connected", "echo verified", "connection closed"];
        assert_eq!(bench.heard.events(), [&sent[..], &["reconnecting"], &sent[..], &["echo lost"]].concat());
    }

    #[actix::test]
    async fn an_echo_that_a_server_owes_when_both_are_stopped_is_given_up() {
        let (mut bench, stream) = stopped_with_a_message_out(Duration::from_secs(5)).await;
        drop(stream);
        assert_eq!(bench.heard.end().await, End::Stopped);
        assert_eq!(bench.heard.counts(), GIVEN_UP);
    }

    /// Messages are due at 0, 1, 2 and 3 seconds, and each is lost half a second later.
    fn timetable() -> TrafficSettings {
        let (duration, timeout) = (Duration::from_secs(4), Duration::from_millis(500));
        TrafficSettings { rate: vec![1.0], duration, timeout, ..traffic(0) }
    }

    /// The refusals between the first try and one a little later than this, if tries come as with a rate.
    fn refusals_for(time: Duration) -> u32 {
        2 + (time - FIRST_PAUSE).div_duration_f64(MEASURING_PAUSE) as u32
    }

    #[actix::test]
    async fn a_timetable_that_is_over_when_the_connection_is_made_ends_the_session() {
        let mut bench = start_after(refusals_for(Duration::from_millis(3700)), timetable());
        let end = async {
            expect_end(bench.clients.accept().await).await;
            bench.heard.end().await
        };
        assert_eq!(timeout(Duration::from_secs(60), end).await, Ok(End::Finished));
        assert_eq!(bench.heard.counts(), [0, 0, 4, 0]);
    }

    #[actix::test]
    async fn a_timetable_that_ends_before_another_connect_has_begun_says_nothing_of_the_server() {
        let (duration, timeout) = (Duration::from_millis(100), Duration::from_millis(500));
        let mut bench = start(TrafficSettings { rate: vec![100.0], duration, timeout, ..traffic(0) });
        let _silent = (bench.clients.accept().await, bench.clients.accept().await);
        assert_eq!(bench.heard.end().await, End::Finished);
        assert_eq!(bench.heard.counts(), [0, 0, 10, 0]);
    }

    fn impatient(traffic: TrafficSettings) -> Bench {
        start_with(Plan { connect_timeout: Duration::from_secs(1), ..plan(traffic) }, 0)
    }

    #[actix::test]
    async fn an_outage_longer_than_the_connect_timeout_does_not_end_a_timetable() {
        let mut bench = impatient(timetable());
        let stream = bench.clients.echo(1).await;
        bench.heard.event("echo verified").await;
        bench.server.refusals.set(refusals_for(Duration::from_millis(3100)));
        drop(stream);
        expect_end(bench.clients.echo(1).await).await;
        assert_eq!(bench.heard.end().await, End::Finished);
        assert_eq!(bench.heard.counts(), [2, 0, 2, 0]);
        let tally = bench.heard.run.tally.borrow();
        assert_eq!((tally.lost_by.unsent, tally.connections.made), (2, 2));
    }

    #[actix::test]
    async fn the_whole_timetable_is_due_though_the_server_is_never_there() {
        for hangs in [false, true] {
            let mut bench = impatient(timetable());
            bench.server.hangs.set(hangs);
            bench.server.refusals.set(if hangs { 0 } else { u32::MAX });
            let started = Instant::now();
            assert!(matches!(bench.heard.end().await, End::Unreachable { .. }));
            // T0 is the first failure. A try that hangs fails at the connect timeout.
            assert_eq!(took(started), Duration::from_millis(if hangs { 5500 } else { 4500 }));
            assert_eq!(bench.heard.counts(), [0, 0, 4, 0]);
            assert_eq!(bench.heard.run.tally.borrow().lost_by.unsent, 4);
            resume_clock();
        }
    }

    #[actix::test]
    async fn a_timetable_ends_with_its_last_message_also_without_a_duration() {
        let counted = TrafficSettings { duration: Duration::ZERO, messages: 3, ..timetable() };
        let mut bench = impatient(counted);
        bench.server.refusals.set(u32::MAX);
        assert!(matches!(bench.heard.end().await, End::Unreachable { .. }));
        assert_eq!(bench.heard.counts(), [0, 0, 3, 0]);
    }

    /// Has two addresses. The first one refuses.
    struct FirstRefuses(Rc<Scripted>);

    impl Connect for FirstRefuses {
        type Stream = DuplexStream;

        async fn connect(
            &self,
            deadline: Instant,
            mut passed_over: impl FnMut(SocketAddr, &io::Error),
        ) -> io::Result<(DuplexStream, SocketAddr)> {
            passed_over(([127, 0, 0, 2], 1).into(), &io::ErrorKind::ConnectionRefused.into());
            self.0.connect(deadline, passed_over).await
        }
    }

    #[actix::test]
    async fn an_address_that_refuses_is_counted_and_the_next_one_takes_the_connection() {
        let ((server, mut clients), (record, mut heard)) = (scripted(), record(&traffic(1)));
        actix::spawn(converse(plan(traffic(1)).into(), FirstRefuses(server).into(), Rc::default(), record.into()));
        drop(clients.echo(1).await);
        assert_eq!(heard.end().await, End::Finished);
        let tally = heard.run.tally.borrow();
        assert_eq!((tally.connections.refused, tally.connections.made, tally.outages.count), (1, 1, 0));
    }

    #[actix::test]
    async fn a_try_without_an_answer_that_ends_the_session_is_unanswered() {
        let mut bench = start(traffic(1));
        bench.server.hangs.set(true);
        assert!(matches!(bench.heard.end().await, End::Unreachable { .. }));
        assert_eq!(bench.heard.run.tally.borrow().connections.unanswered, 1);
    }

    /// How many outages there were.
    fn outages(bench: &Bench) -> u64 {
        let mut tally = bench.heard.run.tally.borrow_mut();
        tally.outages.finish(Duration::from_secs(60));
        tally.outages.count
    }

    #[actix::test]
    async fn messages_that_waited_for_a_server_and_then_run_out_of_time_belong_to_the_outage_that_is_over() {
        let (duration, timeout) = (Duration::from_millis(1400), Duration::from_millis(500));
        let mut bench = start(TrafficSettings { rate: vec![10.0], duration, timeout, pipeline: 2, ..traffic(0) });
        let stream = bench.clients.echo(1).await;
        bench.heard.event("echo verified").await;
        bench.server.refusals.set(refusals_for(Duration::from_secs(1)));
        drop(stream);
        // It is back, answers three of those that have waited, and two of them too late.
        let mut stream = bench.clients.accept().await;
        let mut out = VecDeque::from([receive(&mut stream).await, receive(&mut stream).await]);
        for _ in 0..3 {
            sleep(Duration::from_millis(10)).await;
            send(&mut stream, out.pop_front().unwrap().as_bytes()).await;
            out.push_back(receive(&mut stream).await);
        }
        expect_end(stream).await;
        expect_end(bench.clients.echo(3).await).await;
        assert_eq!(bench.heard.end().await, End::Finished);
        assert_eq!(bench.heard.counts(), [7, 0, 7, 0]);
        let by = bench.heard.run.tally.borrow().lost_by;
        assert_eq!((by.unsent, by.timeout, by.abandoned), (5, 1, 1));
        assert_eq!(outages(&bench), 1);
    }

    #[actix::test]
    async fn messages_that_a_lack_of_local_ports_kept_from_going_out_are_no_outage() {
        // The second lack ends in the pause in which the last message runs out of time.
        for (lack, lost) in [(3100, 3), (3500, 4), (3700, 4)].map(|(ms, lost)| (Duration::from_millis(ms), lost)) {
            let mut bench = start_after(refusals_for(lack), timetable());
            bench.server.refusal.set(io::ErrorKind::AddrNotAvailable);
            expect_end(bench.clients.echo(4 - lost as usize).await).await;
            assert_eq!(bench.heard.end().await, End::Finished);
            assert_eq!(bench.heard.counts(), [4 - lost, 0, lost, 0]);
            assert_eq!(outages(&bench), 0, "{lack:?}");
            resume_clock();
        }
    }

    #[actix::test]
    async fn what_could_not_be_sent_in_an_outage_is_told_in_one_line() {
        let mut bench = start_after(u32::MAX, TrafficSettings { rate: vec![1000.0], ..timetable() });
        assert!(matches!(bench.heard.end().await, End::Unreachable { .. }));
        assert_eq!(bench.heard.run.tally.borrow().lost_by.unsent, 4000);
        assert_eq!(bench.heard.events().iter().filter(|event| *event == "echo lost").count(), 1);
    }

    fn pipelined(messages: u64) -> TrafficSettings {
        TrafficSettings { pipeline: 3, ..traffic(messages) }
    }

    #[actix::test]
    async fn as_many_messages_are_out_at_once_as_the_pipeline_holds() {
        let mut bench = start(pipelined(5));
        let mut stream = bench.clients.accept().await;
        for message in ["1\n", "2\n", "3\n"] {
            assert_eq!(receive(&mut stream).await, message);
        }
        tokio::select! {
            biased;
            message = receive(&mut stream) => panic!("{message}"),
            () = sleep(Duration::from_secs(1)) => {}
        }
        send(&mut stream, b"1\n2").await;
        assert_eq!(receive(&mut stream).await, "4\n");
        send(&mut stream, b"\n3\n4\n").await;
        assert_eq!(receive(&mut stream).await, "5\n");
        send(&mut stream, b"5\n").await;
        expect_end(stream).await;
        assert_eq!(bench.heard.end().await, End::Finished);
        assert_eq!(bench.heard.counts(), [5, 0, 0, 0]);
    }

    #[actix::test]
    async fn those_behind_a_message_that_failed_are_abandoned_and_the_next_one_has_a_new_stream() {
        let mut bench = start(pipelined(4));
        let mut stream = bench.clients.accept().await;
        for _ in 0..3 {
            receive(&mut stream).await;
        }
        send(&mut stream, b"?").await;
        bench.heard.event("connection closed").await;
        assert_eq!(bench.heard.run.tally.borrow().lost_by.abandoned, 2);
        assert_eq!(bench.heard.counts(), [0, 1, 2, 0]);
        let mut stream = bench.clients.accept().await;
        assert_eq!(receive(&mut stream).await, "4\n");
        send(&mut stream, b"4\n").await;
        expect_end(stream).await;
        assert_eq!(bench.heard.end().await, End::Finished);
    }

    #[actix::test]
    async fn a_stop_waits_for_all_that_is_out_and_starts_no_more() {
        let mut bench = start(pipelined(0));
        let mut stream = bench.clients.accept().await;
        for _ in 0..3 {
            receive(&mut stream).await;
        }
        bench.order.give(Stop::Drain);
        send(&mut stream, b"1\n2\n").await;
        sleep(STOP_PATIENCE / 2).await;
        send(&mut stream, b"3\n").await;
        expect_end(stream).await;
        assert_eq!(bench.heard.end().await, End::Stopped);
        assert_eq!(bench.heard.counts(), [3, 0, 0, 0]);
    }

    #[actix::test]
    async fn a_message_that_a_server_closed_on_is_sent_again_at_once_and_first() {
        let mut bench = start(TrafficSettings { resend: 1, ..pipelined(3) });
        let mut stream = bench.clients.echo(1).await;
        receive(&mut stream).await;
        receive(&mut stream).await;
        let closed = Instant::now();
        drop(stream);
        let mut stream = bench.clients.accept().await;
        assert_eq!(took(closed), Duration::ZERO, "what is not lost waits for no order to stop");
        assert_eq!([receive(&mut stream).await, receive(&mut stream).await], ["2\n", "3\n"]);
        send(&mut stream, b"2\n3\n").await;
        expect_end(stream).await;
        assert_eq!(bench.heard.end().await, End::Finished);
        assert_eq!((bench.heard.counts(), bench.heard.run.tally.borrow().resent), ([3, 0, 0, 0], 2));
        assert_eq!(bytes(&bench), Bytes { verified: 6, resent: 4, ..Bytes::default() });
    }

    #[actix::test]
    async fn a_message_is_sent_again_within_its_timeout_however_long_the_period() {
        let mut bench = start(TrafficSettings { resend: 1, period: Duration::from_secs(6), ..traffic(2) });
        let stream = bench.clients.echo(1).await;
        bench.heard.event("echo verified").await;
        drop(stream);
        let mut stream = bench.clients.accept().await;
        assert_eq!(receive(&mut stream).await, "2\n");
        let closed = Instant::now();
        drop(stream);
        let stream = bench.clients.echo(1).await;
        assert_eq!(took(closed), FIRST_PAUSE);
        expect_end(stream).await;
        assert_eq!(bench.heard.end().await, End::Finished);
        assert_eq!((bench.heard.counts(), bench.heard.run.tally.borrow().resent), ([2, 0, 0, 0], 1));
    }

    #[actix::test]
    async fn a_message_of_whose_echo_a_byte_has_come_is_not_sent_again() {
        let mut bench = start(TrafficSettings { resend: 1, ..traffic(1) });
        let mut stream = bench.clients.accept().await;
        receive(&mut stream).await;
        send(&mut stream, b"1").await;
        drop(stream);
        assert_eq!(bench.heard.end().await, End::Finished);
        assert_eq!((bench.heard.counts(), bench.heard.run.tally.borrow().resent), (LOST, 0));
    }

    #[actix::test]
    async fn a_message_that_waits_to_be_sent_again_is_given_up_at_a_stop() {
        let mut bench = start(TrafficSettings { resend: 1, ..traffic(1) });
        let mut stream = bench.clients.accept().await;
        receive(&mut stream).await;
        bench.server.refusals.set(u32::MAX);
        drop(stream);
        bench.heard.event("connect failed").await;
        bench.order.give(Stop::Drain);
        assert_eq!(bench.heard.end().await, End::Stopped);
        assert_eq!(bench.heard.counts(), GIVEN_UP);
    }

    #[actix::test]
    async fn a_message_that_waits_to_be_sent_again_when_the_time_is_over_is_lost() {
        let duration = Duration::from_secs(1);
        let mut bench = start(TrafficSettings { resend: 1, duration, ..traffic(0) });
        let mut stream = bench.clients.accept().await;
        receive(&mut stream).await;
        sleep(duration * 2).await;
        drop(stream);
        assert_eq!(bench.heard.end().await, End::Finished);
        assert_eq!(bench.heard.counts(), LOST);
    }

    #[actix::test]
    async fn a_message_that_is_due_after_the_order_to_stop_counts_for_nothing() {
        let mut bench = start(timetable());
        let _never_ended = bench.clients.echo(1).await;
        let stopped = Instant::now();
        bench.order.give(Stop::Drain);
        assert_eq!(bench.heard.end().await, End::Stopped);
        assert_eq!((took(stopped), bench.heard.counts()), (CLOSE_PATIENCE, VERIFIED));
    }

    #[actix::test]
    async fn a_stream_that_is_replaced_before_its_first_message_is_replaced_at_once() {
        let renew = FIRST_PAUSE / 5;
        let mut bench = start(TrafficSettings { renew, rate: vec![1.0], ..traffic(2) });
        drop(bench.clients.echo(1).await);
        expect_end(bench.clients.accept().await).await;
        bench.heard.event("connection closed").await;
        let closed = Instant::now();
        bench.clients.accept().await;
        assert_eq!(took(closed), Duration::ZERO);
    }

    #[actix::test]
    async fn a_stream_that_has_lasted_is_replaced_at_once_though_it_brought_no_echo() {
        let mut bench = start(traffic(0));
        let mut stream = bench.clients.accept().await;
        sleep(FIRST_PAUSE).await;
        send(&mut stream, b"?").await;
        bench.heard.event("connection closed").await;
        let closed = Instant::now();
        bench.clients.accept().await;
        assert_eq!(took(closed), Duration::ZERO);
    }

    #[actix::test]
    async fn a_stream_of_an_age_is_replaced_between_two_messages_and_that_is_no_failure() {
        let renew = Duration::from_secs(10);
        let mut bench = start(TrafficSettings { renew, ..with_period(0) });
        let made = Instant::now();
        let mut stream = bench.clients.accept().await;
        let mut echo = [0; 64];
        while let Ok(count @ 1..) = stream.read(&mut echo).await {
            send(&mut stream, &echo[..count]).await;
        }
        let age = made.elapsed();
        assert!(age >= renew * 3 / 4 && age <= renew + Duration::from_millis(10), "{age:?}");
        drop(stream);
        bench.heard.event("connection closed").await;
        bench.clients.accept().await;
        bench.heard.event("connected").await;
        let connections = bench.heard.run.tally.borrow().connections;
        assert_eq!((connections.made, connections.reconnects, connections.closed_by_server), (2, 0, 0));
        assert_eq!(connections.renewed, 1);
    }
}
