//! TLS inside a service: an echo. It is notified of a stop: it finishes its answer and sends `close_notify`, the end that TLS
//! asks for, so that the client knows that nothing was cut off.
//!
//! Run it with `cargo run --example tls`, talk to it with `openssl s_client -quiet -connect 127.0.0.1:12345`, and stop it with
//! Ctrl-C. Its certificate is made at the start; `cargo run --example tls -- CERTIFICATE KEY` reads it from PEM files.
//! `ECHO_SERVER_LISTEN__ADDRESS` chooses another address.

use std::{
    error::Error,
    io::{self, ErrorKind},
    pin::pin,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};
use supervised_echo::{AtStop, Server, Service, Settings, Signals, Socket, logging, settings::layers};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);

struct Tls(TlsAcceptor);

impl Service for Tls {
    const AT_STOP: AtStop = AtStop::Notify;

    async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
        let stopping = socket.stopping();
        echo(socket, &self.0, stopping).await
    }
}

/// The protocol, from the handshake to `close_notify`.
async fn echo(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    acceptor: &TlsAcceptor,
    stopping: impl Future<Output = ()>,
) -> io::Result<()> {
    let (mut buffer, mut stopping) = (vec![0; 16 * 1024], pin!(stopping));
    let accepted = tokio::select! {
        biased;
        accepted = timeout(HANDSHAKE, acceptor.accept(stream)) => accepted?,
        () = &mut stopping => return Ok(()), // nothing has been asked yet
    };
    let mut stream = match accepted {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()), // a client that only probes, and goes
        accepted => accepted?,
    };
    loop {
        let n = tokio::select! {
            biased; // what has arrived is answered first
            read = stream.read(&mut buffer) => read?,
            () = &mut stopping => 0,
        };
        if n == 0 {
            return stream.shutdown().await;
        }
        stream.write_all(&buffer[..n]).await?;
        stream.flush().await?;
    }
}

type Certificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Reads a certificate and its key from two files, or makes them.
fn certificate(files: &[String]) -> Result<Certificate, Box<dyn Error>> {
    if let [chain, key] = files {
        let chain = CertificateDer::pem_file_iter(chain)?.collect::<Result<_, _>>()?;
        return Ok((chain, PrivateKeyDer::from_pem_file(key)?));
    }
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    Ok((vec![made.cert.into()], made.signing_key.into()))
}

fn acceptor((chain, key): Certificate) -> Result<TlsAcceptor, Box<dyn Error>> {
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[actix::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let acceptor = acceptor(certificate(&std::env::args().skip(1).collect::<Vec<_>>())?)?;
    let settings = layers::load::<Settings>(None, std::env::vars_os(), [])?.settings;
    let (log, _written_to_the_end) = logging::logger(&settings.log, logging::Stream::Stdout)?;
    let signals = Signals::register()?;
    let server = Server::bind(settings, Tls(acceptor))?.with_log(log);
    signals.forward_to(server.handle());
    Ok(server.run().await?.exit_code().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::Notify;
    use tokio_rustls::{
        TlsConnector,
        rustls::{ClientConfig, RootCertStore},
    };

    #[tokio::test]
    async fn a_client_gets_its_echo_and_at_a_stop_a_clean_end() {
        let made = certificate(&[]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.0[0].clone()).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let (acceptor, connector) = (acceptor(made).unwrap(), TlsConnector::from(Arc::new(config)));
        let ((client, server), stop) = (tokio::io::duplex(1024), Notify::new());
        let talk = async {
            let mut stream = connector.connect("localhost".try_into().unwrap(), client).await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            let mut heard = [0; 5];
            stream.read_exact(&mut heard).await.unwrap();
            stop.notify_one();
            // Without `close_notify` this would be an error.
            assert_eq!((&heard, stream.read(&mut [0]).await.unwrap()), (b"hello", 0));
        };
        let (served, ()) = tokio::join!(echo(server, &acceptor, stop.notified()), talk);
        served.unwrap();
    }
}
