//! What the answers have in common: the kinds of body, the headers, and a refusal with its reason in one line.

use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    Response, StatusCode,
    body::Bytes,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS},
};
use serde::Serialize;
use std::convert::Infallible;

/// After how many seconds a watcher that found no place may ask again.
const RETRY: HeaderValue = HeaderValue::from_static("5");

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;
pub(super) type Answer = Response<Body>;

/// Why a request is refused, in one line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal(pub StatusCode, pub String);

impl From<Refusal> for Answer {
    fn from(Refusal(status, reason): Refusal) -> Self {
        let mut answer = text(status, &reason);
        match status {
            StatusCode::METHOD_NOT_ALLOWED => answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD")),
            StatusCode::SERVICE_UNAVAILABLE => answer.headers_mut().insert(RETRY_AFTER, RETRY),
            _ => None,
        };
        answer
    }
}

/// 200 if nothing fails, else 503 and what fails.
pub(super) fn verdict(fails: Vec<String>) -> Answer {
    if fails.is_empty() { text(StatusCode::OK, "ok") } else { text(StatusCode::SERVICE_UNAVAILABLE, &fails.join("\n")) }
}

pub(super) fn text(status: StatusCode, lines: &str) -> Answer {
    respond(status, "text/plain; charset=utf-8", format!("{lines}\n").into())
}

pub(super) fn json(value: &impl Serialize) -> Answer {
    respond(StatusCode::OK, "application/json", to_json(value).into())
}

pub(super) fn respond(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    with_body(status, kind, Full::new(body).boxed_unsync())
}

pub(super) fn with_body(status: StatusCode, kind: &'static str, body: Body) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-store"), (X_CONTENT_TYPE_OPTIONS, "nosniff")] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

pub(super) fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("numbers, texts and lists of them can be written")
}
