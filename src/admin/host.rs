//! By which names the Admin may be asked. A page of another site whose name was made to lead here (DNS rebinding) would
//! otherwise read what it likes, in the browser of someone who may.
//!
//! Relies on a browser to name the host that it asks.

use crate::admin::answer::Refusal;
use hyper::{Request, StatusCode, header::HOST, http::uri::Authority};
use std::net::IpAddr;

/// Whether a request names a host by which it may ask. One that names none is no browser's.
pub(super) fn check<B>(request: &Request<B>, hosts: &[String]) -> Result<(), Refusal> {
    let named = request.headers().get_all(HOST).iter().map(|host| Authority::try_from(host.as_bytes()).ok());
    let mut named = named.chain(request.uri().authority().cloned().map(Some));
    if named.all(|host| host.is_some_and(|host| may_ask(host.host(), hosts))) {
        Ok(())
    } else {
        Err(Refusal(StatusCode::FORBIDDEN, "the Host is neither an IP address nor localhost nor in admin.hosts".into()))
    }
}

fn may_ask(host: &str, hosts: &[String]) -> bool {
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    literal.parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || hosts.iter().any(|known| host.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_may_be_an_address_or_localhost_or_a_name_from_the_settings() {
        let hosts = ["echo.example".to_owned()];
        let refused = |host: &[&str]| {
            let request = host.iter().fold(Request::builder().uri("/"), |request, host| request.header(HOST, *host));
            check(&request.body(()).unwrap(), &hosts).is_err()
        };
        for good in ["127.0.0.1", "10.1.2.3:8080", "[::1]", "[::1]:8080", "localhost", "LocalHost:80", "Echo.Example:1"]
        {
            assert!(!refused(&[good]), "{good}");
        }
        for bad in
            ["", "evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "xecho.example", "a b", ":80"]
        {
            assert!(refused(&[bad]), "{bad}");
            assert!(refused(&["localhost", bad]), "{bad}");
        }
        assert!(!refused(&[]));
    }

    #[test]
    fn a_host_in_the_request_line_counts_too() {
        for (uri, refused) in [("http://localhost/livez", false), ("http://evil.example/livez", true)] {
            let request = Request::builder().uri(uri).header(HOST, "localhost").body(()).unwrap();
            assert_eq!(check(&request, &[]).is_err(), refused, "{uri}");
        }
    }
}
