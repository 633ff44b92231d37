//! The table of endpoints, and what every answer has in common. Only `GET` and `HEAD`: nothing here changes the server.
//!
//! A request that is refused gets its reason in one line. Relies on hyper to leave the body out of the answer to a `HEAD`.

use crate::{
    admin::{
        answer::{Answer, Refusal, json, respond, verdict, with_body},
        ending::Ending,
        events, health, host,
        in_force::InForce,
        metrics,
        page::Page,
        query::Query,
    },
    decisions::ids::{ConnectionId, WorkerId},
    server::watch::{Watch, tree::State},
};
use futures_util::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::{
    Method, Request, StatusCode,
    body::{Frame, Incoming},
    header::CONTENT_SECURITY_POLICY,
};
use prometheus_client::registry::Registry;
use std::{convert::Infallible, sync::Arc};
use tokio::sync::Semaphore;

/// Watchers of the events at once.
const WATCHERS: usize = 8;
/// Connections of each Worker in a tree, at most and if nothing else is asked for.
const LISTED: u64 = events::LISTED as u64;

/// What the endpoints answer from.
pub(super) struct Site {
    pub watch: Watch,
    /// True once the server has ended.
    pub ending: Ending,
    hosts: Vec<String>,
    in_force: InForce,
    metrics: Registry,
    page: Page,
    watchers: Arc<Semaphore>,
}

impl Site {
    pub fn new(watch: Watch, hosts: Vec<String>, in_force: InForce, ending: Ending) -> Self {
        let metrics = metrics::registry(watch.clone(), in_force.clone());
        Self {
            watch,
            ending,
            hosts,
            in_force,
            metrics,
            page: Page::new(),
            watchers: Arc::new(Semaphore::new(WATCHERS)),
        }
    }
}

/// Answers one request.
pub(super) async fn answer(site: &Site, request: Request<Incoming>) -> Result<Answer, Infallible> {
    Ok(route(site, &request).await.unwrap_or_else(Answer::from))
}

async fn route(site: &Site, request: &Request<Incoming>) -> Result<Answer, Refusal> {
    host::check(request, &site.hosts)?;
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered".into()));
    }
    let (watch, mut query) = (&site.watch, Query::of(request.uri().query()));
    match request.uri().path() {
        "/" => {
            query.end()?;
            let mut page = respond(StatusCode::OK, "text/html; charset=utf-8", Page::HTML.into());
            page.headers_mut().insert(CONTENT_SECURITY_POLICY, site.page.policy.clone());
            Ok(page)
        }
        "/livez" => {
            query.end()?;
            Ok(verdict(health::dead(watch.answers(health::PATIENCE).await)))
        }
        "/readyz" => {
            let excluded = query.all("exclude", health::Check::named, "phase, acceptor, descriptors or room")?;
            query.end()?;
            let accepting = watch.acceptors();
            Ok(verdict(health::unready(watch.phase(), &accepting, &watch.occupancy(), &excluded)))
        }
        "/metrics" => {
            query.end()?;
            Ok(respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics::text(&site.metrics)))
        }
        "/v1/tree" => {
            let most = query.number("connections", 0..=LISTED)?.unwrap_or(LISTED);
            query.end()?;
            Ok(json(&watch.tree(most as usize).await))
        }
        "/v1/connections" => {
            let after = query.number("after", 0..=u64::MAX)?.map(ConnectionId);
            let limit = query.number("limit", 1..=1000)?.unwrap_or(100);
            let worker = query.number("worker", 1..=u64::MAX)?.map(|worker| WorkerId(worker as usize));
            let state = query.one("state", State::named, "waiting, serving, draining or closing")?;
            query.end()?;
            Ok(json(&watch.connections(after, limit as usize, worker, state).await))
        }
        "/v1/events" => {
            query.end()?;
            let taken = |_| Refusal(StatusCode::SERVICE_UNAVAILABLE, format!("{WATCHERS} others watch already"));
            let place = site.watchers.clone().try_acquire_owned().map_err(taken)?;
            let events = events::stream(watch.clone(), site.ending.clone(), place).map(|event| Ok(Frame::data(event)));
            Ok(with_body(StatusCode::OK, "text/event-stream", StreamBody::new(events).boxed_unsync()))
        }
        "/v1/settings" => {
            query.end()?;
            site.in_force
                .document()
                .map(|document| json(&document))
                .ok_or_else(|| not_found("no settings were handed in"))
        }
        _ => Err(not_found("no such endpoint")),
    }
}

fn not_found(reason: &str) -> Refusal {
    Refusal(StatusCode::NOT_FOUND, reason.into())
}
