//! Accepts the Admin's clients and speaks HTTP/1 with them, within bounds: so many clients, so much of headers, so much time.
//!
//! A panic in an answer ends the connection on which it was asked, and no other. Relies on hyper for the protocol.

use crate::admin::routes::{self, Site};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use slog::Logger;
use std::{cell::Cell, pin::pin, rc::Rc, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    select,
    task::JoinSet,
    time::sleep,
};

/// Clients at once. More wait in the backlog.
const CLIENTS: usize = 16;
/// The most that a request's line and headers may take. hyper allows no less.
const HEADERS: usize = 8 * 1024;
/// How long they may take.
const HEADERS_PATIENCE: Duration = Duration::from_secs(5);
/// How long accepting pauses after an error, such as that no descriptor is left.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until the end of the server, and then until those that have asked have their answers.
pub(super) async fn serve(listener: Rc<TcpListener>, site: Arc<Site>, log: Logger) {
    let (mut ending, mut clients) = (site.ending.clone(), JoinSet::new());
    loop {
        select! {
            accepted = listener.accept(), if clients.len() < CLIENTS => match accepted {
                Ok((stream, _)) => drop(clients.spawn_local(converse(stream, site.clone()))),
                Err(_) => sleep(PAUSE).await,
            },
            Some(ended) = clients.join_next() => if ended.is_err() {
                slog::warn!(log, "admin request crashed");
            },
            () = ending.comes() => break,
        }
    }
    while clients.join_next().await.is_some() {}
}

/// One request and its answer. A connection that was kept for more of them would keep its place too, and there are few.
async fn converse(stream: TcpStream, site: Arc<Site>) {
    let (mut ending, asked) = (site.ending.clone(), Cell::new(false));
    let service = service_fn(|request| {
        asked.set(true);
        routes::answer(&site, request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADERS_PATIENCE).max_buf_size(HEADERS).keep_alive(false);
    let mut conversation = pin!(http.serve_connection(TokioIo::new(stream), service));
    // What a client does wrong is its own affair.
    select! {
        biased; // what has arrived is answered first
        _ = conversation.as_mut() => {}
        () = ending.comes() => if asked.get() {
            let _ = conversation.await;
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::{ending::ending, in_force::InForce},
        server::{testing::watched, watch::Watch},
        testing,
    };
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::Instant,
    };

    #[actix::test]
    async fn at_the_end_those_that_have_asked_nothing_are_not_waited_for() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (address, (ends, ending)) = (listener.local_addr().unwrap(), ending());
        let site = Arc::new(Site::new(Watch::new(watched().watched()), Vec::new(), InForce::default(), ending));
        let serving = actix_rt::spawn(serve(Rc::new(listener), site, testing::log().0));
        let _silent = TcpStream::connect(address).await.unwrap();
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET /livez HT").await.unwrap();
        // This one comes last, so the others are there.
        let (mut last, mut answer) = (TcpStream::connect(address).await.unwrap(), String::new());
        last.write_all(b"GET /livez HTTP/1.0\r\n\r\n").await.unwrap();
        last.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
        tokio::time::pause();
        let end = Instant::now();
        drop(ends);
        serving.await.unwrap();
        assert_eq!(end.elapsed(), Duration::ZERO);
    }
}
