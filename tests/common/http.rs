//! HTTP by hand, as the clients of the Admin and of a browser's driver speak it: one request a connection, and the server-sent events.

use super::connect;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
};

/// An answer to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// The names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// Asks for a path as a browser on this machine does.
pub fn get(admin: SocketAddr, path: &str) -> Answer {
    ask(admin, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
}

/// Sends this and reads what comes.
pub fn ask(admin: SocketAddr, request: &str) -> Answer {
    let mut client = connect(admin);
    client.write_all(request.as_bytes()).unwrap();
    Answer::read(client)
}

impl Answer {
    pub fn read(client: TcpStream) -> Self {
        let mut stream = BufReader::new(client);
        let (status, headers) = head(&mut stream);
        let (mut body, length) = (String::new(), headers.get("content-length"));
        // A browser's driver keeps the connection open.
        let length = length.map_or(u64::MAX, |length: &String| length.parse().unwrap());
        stream.take(length).read_to_string(&mut body).unwrap();
        Self { status, headers, body }
    }

    pub fn json(&self) -> Value {
        assert_eq!((self.status, &*self.headers["content-type"]), (200, "application/json"), "{self:?}");
        serde_json::from_str(&self.body).unwrap()
    }

    /// The values of a metric by their labels.
    pub fn metric(&self, name: &str) -> BTreeMap<&str, f64> {
        let lines = self.body.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
        let of_it = lines.filter(|(labels, _)| labels.is_empty() || labels.starts_with('{'));
        let values: BTreeMap<_, _> = of_it.map(|(labels, value)| (labels, value.parse().unwrap())).collect();
        assert!(!values.is_empty(), "no {name}\n{}", self.body);
        values
    }
}

fn head(stream: &mut impl BufRead) -> (u16, BTreeMap<String, String>) {
    let mut lines = stream.lines().map(Result::unwrap);
    let first = lines.next().expect("there is an answer");
    let status = first.split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.take_while(|line| !line.is_empty()).map(|line| {
        let (name, value) = line.split_once(':').unwrap();
        (name.to_lowercase(), value.trim_start().to_owned())
    });
    (status, headers.collect())
}

/// The events, as they come.
pub struct Events(BufReader<TcpStream>);

impl Events {
    pub fn of(admin: SocketAddr) -> Self {
        Self::over(connect(admin))
    }

    /// On this connection. As HTTP/1.0 has it, the body ends with the connection and is not in chunks.
    pub fn over(mut client: TcpStream) -> Self {
        client.write_all(b"GET /v1/events HTTP/1.0\r\n\r\n").unwrap();
        let mut stream = BufReader::new(client);
        let (status, headers) = head(&mut stream);
        assert_eq!((status, &*headers["content-type"]), (200, "text/event-stream"));
        Self(stream)
    }
}

impl Iterator for Events {
    type Item = (String, Value);

    fn next(&mut self) -> Option<Self::Item> {
        let mut lines = self.0.by_ref().lines().map(Result::unwrap);
        let name = lines.next()?.strip_prefix("event: ").expect("an event has a name").to_owned();
        let data = lines.next().unwrap();
        assert_eq!(lines.next().unwrap(), "");
        Some((name, serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap()))
    }
}
