//! Accepts the Admin's clients and speaks HTTP/1 with them, within bounds: so many clients, so much of headers, so much time.
//!
//! A panic in an answer ends the connection on which it was asked, and no other. Relies on hyper for the protocol.

use crate::admin::routes::{self, Site};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use slog::Logger;
use std::{pin::pin, rc::Rc, sync::Arc, time::Duration};
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
/// How long they may take. It is also how long a client may be silent between two requests.
const HEADERS_PATIENCE: Duration = Duration::from_secs(5);
/// How long accepting pauses after an error, such as that no descriptor is left.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until the end of the server, and then until the clients have their answers.
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

async fn converse(stream: TcpStream, site: Arc<Site>) {
    let mut ending = site.ending.clone();
    let service = service_fn(|request| routes::answer(&site, request));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADERS_PATIENCE).max_buf_size(HEADERS);
    let mut conversation = pin!(http.serve_connection(TokioIo::new(stream), service));
    select! {
        // What a client does wrong is its own affair.
        _ = conversation.as_mut() => return,
        () = ending.comes() => conversation.as_mut().graceful_shutdown(),
    }
    let _ = conversation.await;
}
