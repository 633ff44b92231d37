//! Requests and responses: JSON in frames, each with its length before it. The service is notified of a stop: it answers the
//! whole requests that have arrived, and ends between two of them.
//!
//! Run it with `cargo run --example framed`, and ask it from another terminal for a sum:
//!
//! ```sh
//! printf '\0\0\0\030{"id":1,"sum":[1,2,3.5]}' | nc -N 127.0.0.1 12345
//! ```
//!
//! Ctrl-C stops it. `ECHO_SERVER_LISTEN__ADDRESS` chooses another address.

use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use std::{error::Error, io, pin::pin, process::ExitCode};
use supervised_echo::{AtStop, Server, Service, Settings, Signals, Socket, logging, settings::layers};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

/// The longest request, in bytes; a frame that claims more is an error.
const LONGEST: usize = 64 * 1024;

#[derive(Serialize, Deserialize)]
struct Request {
    id: u64,
    sum: Vec<f64>,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
#[serde(rename_all = "lowercase")]
enum Response {
    Result { id: u64, sum: f64 },
    Error(String),
}

struct Calculator;

impl Service for Calculator {
    const AT_STOP: AtStop = AtStop::Notify;

    async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
        let stopping = socket.stopping();
        answer_all(socket, stopping).await
    }
}

fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(LONGEST).new_codec()
}

/// The protocol. A frame that is no request is answered with an error. An end in the midst of a frame is an error of the codec,
/// and so of the service.
async fn answer_all(stream: impl AsyncRead + AsyncWrite + Unpin, stopping: impl Future<Output = ()>) -> io::Result<()> {
    let (mut frames, mut stopping) = (Framed::new(stream, codec()), pin!(stopping));
    loop {
        let frame = tokio::select! {
            biased; // requests that have arrived are answered first
            frame = frames.next() => frame,
            () = &mut stopping => None,
        };
        let Some(frame) = frame.transpose()? else { return Ok(()) };
        let response = match serde_json::from_slice(&frame) {
            Ok(Request { id, sum }) => Response::Result { id, sum: sum.iter().sum() },
            Err(error) => Response::Error(error.to_string()),
        };
        frames.send(serde_json::to_vec(&response)?.as_slice()).await?;
    }
}

#[actix::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let settings = layers::load::<Settings>(None, std::env::vars_os(), [])?.settings;
    let (log, _written_to_the_end) = logging::logger(&settings.log, logging::Stream::Stdout)?;
    let signals = Signals::register()?;
    let server = Server::bind(settings, Calculator)?.with_log(log);
    signals.forward_to(server.handle());
    Ok(server.run().await?.exit_code().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use tokio::io::AsyncWriteExt;

    fn request() -> Vec<u8> {
        serde_json::to_vec(&Request { id: 7, sum: vec![1.0, 2.0, 3.5] }).unwrap()
    }

    #[tokio::test]
    async fn each_request_is_answered_and_what_is_none_too() {
        let (client, server) = tokio::io::duplex(1024);
        let asking = async {
            let mut frames = Framed::new(client, codec());
            let mut answers = Vec::new();
            for frame in [&request()[..], b"{}"] {
                frames.send(frame).await.unwrap();
                answers.push(serde_json::from_slice(&frames.next().await.unwrap().unwrap()).unwrap());
            }
            answers
        };
        let (served, answers) = tokio::join!(answer_all(server, pending()), asking);
        assert!(served.is_ok());
        assert_eq!(answers[0], Response::Result { id: 7, sum: 6.5 });
        assert!(matches!(&answers[1], Response::Error(error) if error.contains("missing field `id`")), "{answers:?}");
    }

    #[tokio::test]
    async fn at_a_stop_a_whole_request_is_answered_and_half_of_another_is_not() {
        let (client, server) = tokio::io::duplex(1024);
        let mut frames = Framed::new(client, codec());
        frames.send(&request()[..]).await.unwrap();
        frames.get_mut().write_all(&[0; 2]).await.unwrap(); // half of a length
        answer_all(server, ready(())).await.unwrap();
        let answer = frames.next().await.unwrap().unwrap();
        assert_eq!(serde_json::from_slice::<Response>(&answer).unwrap(), Response::Result { id: 7, sum: 6.5 });
        assert!(frames.next().await.is_none());
    }
}
