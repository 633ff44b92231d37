//! What the client's unit tests share: a server that the test plays, and one connection to watch from its start to its end.

use crate::{
    client::{
        connect::Connect,
        record::{ConnectionExit, End, Record},
        run::Run,
        session::Plan,
    },
    settings::{ClientSettings, TrafficSettings},
    stop::Stopped,
    testing::{log, probe},
};
use std::{cell::Cell, io, net::SocketAddr, rc::Rc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::Instant,
};

/// Bytes that a stream holds in each direction. They are few, so that a large message does not fit.
const PIPE: usize = 64;

/// Hands the other end of every connection to the test, after it has refused some tries.
pub(crate) struct Scripted {
    accepted: UnboundedSender<DuplexStream>,
    pub refusals: Cell<u32>,
    /// The error of a try that is refused.
    pub refusal: Cell<io::ErrorKind>,
    /// Whether a try that is not refused gets no answer.
    pub hangs: Cell<bool>,
}

/// A server, and the clients that connect to it.
pub(crate) fn scripted() -> (Rc<Scripted>, Clients) {
    let (accepted, clients) = unbounded_channel();
    let refusal = Cell::new(io::ErrorKind::ConnectionRefused);
    (Rc::new(Scripted { accepted, refusals: Cell::default(), refusal, hangs: Cell::default() }), Clients(clients))
}

impl Connect for Scripted {
    type Stream = DuplexStream;

    async fn connect(
        &self,
        _: Instant,
        _: impl FnMut(SocketAddr, &io::Error),
    ) -> io::Result<(DuplexStream, SocketAddr)> {
        if self.refusals.get() > 0 {
            self.refusals.set(self.refusals.get() - 1);
            return Err(self.refusal.get().into());
        }
        if self.hangs.get() {
            std::future::pending().await
        }
        let (ours, theirs) = duplex(PIPE);
        self.accepted.send(theirs).expect("the test wants it");
        Ok((ours, ([127, 0, 0, 1], 1).into()))
    }
}

/// The server's ends.
pub(crate) struct Clients(UnboundedReceiver<DuplexStream>);

impl Clients {
    pub async fn accept(&mut self) -> DuplexStream {
        self.0.recv().await.expect("the client connects")
    }

    /// Echoes so many messages on the next connection, and gives it back.
    pub async fn echo(&mut self, messages: usize) -> DuplexStream {
        let mut stream = self.accept().await;
        for _ in 0..messages {
            let message = receive(&mut stream).await;
            stream.write_all(message.as_bytes()).await.expect("the client reads");
        }
        stream
    }
}

/// The next message, with its newline.
pub(crate) async fn receive(stream: &mut DuplexStream) -> String {
    let mut message = String::new();
    while !message.ends_with('\n') {
        message.push(stream.read_u8().await.expect("the client sends").into());
    }
    message
}

/// Waits for the client's end of a stream; nothing may come before.
pub(crate) async fn expect_end(mut stream: DuplexStream) {
    assert_eq!(stream.read(&mut [0]).await.expect("it is open"), 0);
}

/// Messages `1`, `2`, … without a pause.
pub(crate) fn traffic(messages: u64) -> TrafficSettings {
    TrafficSettings {
        connections: 1,
        messages,
        duration: Duration::ZERO,
        period: Duration::ZERO,
        reconnect: false,
        message: "{n}".into(),
        timeout: Duration::from_secs(5),
        ..ClientSettings::default().traffic
    }
}

pub(crate) fn plan(traffic: TrafficSettings) -> Plan {
    Plan { id: "c".into(), server: "server:1".into(), traffic, connect_timeout: Duration::from_secs(10) }
}

/// What one connection reports.
pub(crate) struct Heard {
    pub run: Rc<Run>,
    log: UnboundedReceiver<String>,
    ends: UnboundedReceiver<Stopped<ConnectionExit>>,
}

/// A rate needs a runtime.
pub(crate) fn record(traffic: &TrafficSettings) -> (Record, Heard) {
    let ((parent, ends), (logger, log)) = (probe(), log());
    let run = Rc::new(Run::new(traffic).expect("there is a timer"));
    (Record::new(1, &logger, run.clone(), parent), Heard { run, log, ends })
}

impl Heard {
    /// Waits for the one acknowledgement, and checks that no actor is left to send another.
    pub async fn end(&mut self) -> End {
        let Stopped(exit) = self.ends.recv().await.expect("it is acknowledged");
        self.ends.close();
        assert_eq!(self.ends.recv().await, None);
        exit.end
    }

    /// `verified`, `wrong`, `lost` and `given_up`.
    pub fn counts(&self) -> [u64; 4] {
        let tally = self.run.tally.borrow();
        [tally.verified, tally.wrong, tally.lost, tally.given_up]
    }

    /// Waits for this event.
    pub async fn event(&mut self, wanted: &str) {
        crate::testing::logged(&mut self.log, wanted).await;
    }

    /// All events so far that no test has waited for.
    pub fn events(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.log.try_recv().ok()).collect()
    }
}
