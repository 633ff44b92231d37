//! The header of the PROXY protocol, versions 1 and 2: with it a balancer tells the address of the client for which it connects.
//!
//! Pure: it is given all that has arrived so far, and says what is to be done. The crate `proxy-header` reads a header that is
//! whole. `core::net` has addresses and no sockets.

use core::net::SocketAddr;
use proxy_header::{Error, ParseConfig, ProxyHeader};

/// The longest header that is taken. Balancers send some hundred bytes at most.
pub const LONGEST: usize = 4096;

const V1: &[u8] = b"PROXY ";
const V1_LONGEST: usize = 107;
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// What comes before the part of a header of version 2 whose length it tells.
const V2_FIXED: usize = 16;

/// A header of version 2 that speaks for no other client: what comes behind it is said by the other end of the connection itself.
pub const LOCAL: [u8; V2_FIXED] = *b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// What is to be done with a connection whose first bytes have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Wait for more.
    Wait,
    /// Take away a header of this length, which may be none, and serve.
    Serve {
        /// In bytes.
        length: usize,
        /// The client for which a balancer speaks. Without one the client is the other end of the connection itself.
        client: Option<SocketAddr>,
    },
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is none, and one is required.
    #[error("no PROXY header")]
    Missing,
    /// Its form is wrong, or the client has ended its input amid it.
    #[error("a malformed PROXY header")]
    Malformed,
    /// It is longer than [`LONGEST`], or than the protocol allows.
    #[error("too long a PROXY header")]
    TooLong,
    /// It was not whole in time.
    #[error("a PROXY header that did not come in time")]
    Slow,
    /// It is required, and the other end of the connection is none of those that are trusted.
    #[error("not from a trusted network")]
    Untrusted,
}

/// What may still come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum More {
    /// More bytes may come.
    Open,
    /// The server stops. A client that has sent nothing is waited for no longer.
    Stopped,
    /// The client has ended its input.
    Ended,
    /// The time for the header is over.
    Late,
}

/// What is to be done after these bytes, all that have come so far.
///
/// # Errors
/// Why the connection is to be reset.
pub fn decide(bytes: &[u8], required: bool, more: More) -> Result<Step, Refusal> {
    const NONE: Step = Step::Serve { length: 0, client: None };
    if [V1, V2].iter().any(|signature| bytes.starts_with(signature)) {
        return match (read(bytes)?, more) {
            (Step::Wait, More::Ended) => Err(Refusal::Malformed),
            (Step::Wait, More::Late) => Err(Refusal::Slow),
            (step, _) => Ok(step),
        };
    }
    let may_come = [V1, V2].iter().any(|signature| signature.starts_with(bytes));
    match more {
        More::Open | More::Stopped if may_come && !bytes.is_empty() => Ok(Step::Wait),
        More::Open if may_come => Ok(Step::Wait),
        // It has sent nothing, so there is nothing to refuse.
        More::Stopped | More::Ended if bytes.is_empty() => Ok(NONE),
        More::Late if may_come && required => Err(Refusal::Slow),
        _ if required => Err(Refusal::Missing),
        _ => Ok(NONE),
    }
}

/// Reads a header whose signature has come.
fn read(bytes: &[u8]) -> Result<Step, Refusal> {
    let too_long = match bytes.get(..V2_FIXED) {
        _ if bytes.starts_with(V1) => bytes.get(..V1_LONGEST).is_some_and(|line| !line.contains(&b'\n')),
        Some(&[.., high, low]) => V2_FIXED + usize::from(u16::from_be_bytes([high, low])) > LONGEST,
        _ => false,
    };
    if too_long {
        return Err(Refusal::TooLong);
    }
    match ProxyHeader::parse(bytes, ParseConfig::default()) {
        // The parts behind the addresses tell nothing that is used here. But each must be whole.
        Ok((header, _)) if header.tlvs().any(|part| part.is_err()) => Err(Refusal::Malformed),
        Ok((header, length)) => {
            Ok(Step::Serve { length, client: header.proxied_address().map(|address| address.source) })
        }
        Err(Error::BufferTooShort) => Ok(Step::Wait),
        Err(_) => Err(Refusal::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A header of version 2 for a client of IPv4, with this much behind the addresses.
    fn v2(client: [u8; 4], port: u16, behind: &[u8]) -> Vec<u8> {
        let length = (12 + behind.len() as u16).to_be_bytes();
        let port = port.to_be_bytes();
        [V2, &[0x21, 0x11], &length, &client, &[10, 0, 0, 1], &port, &[0, 80], behind].concat()
    }

    /// A TLV of the type NOOP, which is only there to fill.
    fn noop(length: u16) -> Vec<u8> {
        [&[4][..], &length.to_be_bytes(), &vec![0; length.into()]].concat()
    }

    fn headers() -> impl Strategy<Value = (Vec<u8>, SocketAddr)> {
        let v4 = (any::<[u8; 4]>(), any::<u16>());
        let v1 = v4.prop_map(|(ip, port)| {
            let client = SocketAddr::from((ip, port));
            (format!("PROXY TCP4 {} 10.0.0.1 {port} 80\r\n", client.ip()).into_bytes(), client)
        });
        let v1_six = (any::<[u8; 16]>(), any::<u16>()).prop_map(|(ip, port)| {
            let client = SocketAddr::from((ip, port));
            (format!("PROXY TCP6 {} ::1 {port} 80\r\n", client.ip()).into_bytes(), client)
        });
        let v2 = (v4, 0u16..300).prop_map(|((ip, port), n)| (v2(ip, port, &noop(n)), SocketAddr::from((ip, port))));
        prop_oneof![v1, v1_six, v2]
    }

    proptest! {
        #[test]
        fn a_header_in_any_pieces_is_waited_for_and_then_taken_alone(
            (header, client) in headers(), behind in prop::collection::vec(any::<u8>(), 0..50), required in any::<bool>(),
        ) {
            for n in 0..header.len() {
                prop_assert_eq!(decide(&header[..n], required, More::Open), Ok(Step::Wait));
                let late = decide(&header[..n], required, More::Late);
                let begun = n >= V1.len() && header.starts_with(V1) || n >= V2.len();
                prop_assert_eq!(late.is_err(), required || begun, "after {} bytes: {:?}", n, late);
            }
            let length = header.len();
            let all = [header, behind].concat();
            for more in [More::Open, More::Stopped, More::Ended, More::Late] {
                prop_assert_eq!(decide(&all, required, more), Ok(Step::Serve { length, client: Some(client) }));
            }
        }

        #[test]
        fn no_bytes_confuse_it(mut bytes in prop::collection::vec(any::<u8>(), 0..5000), begin in 0usize..4, required in any::<bool>()) {
            let begins = [V1.to_vec(), V2.to_vec(), [V2, &[0x21, 0x11]].concat(), b"PROXY TCP4 ".to_vec()];
            bytes.splice(..0, begins[begin].iter().copied());
            for more in [More::Open, More::Stopped, More::Ended, More::Late] {
                match decide(&bytes, required, more) {
                    Ok(Step::Serve { length, .. }) => prop_assert!(0 < length && length <= bytes.len().min(LONGEST)),
                    Ok(Step::Wait) => prop_assert!(bytes.len() < LONGEST && matches!(more, More::Open | More::Stopped)),
                    Err(_) => {}
                }
            }
        }

        #[test]
        fn what_is_no_header_is_data_or_refused(bytes in prop::collection::vec(any::<u8>(), 1..50)) {
            prop_assume!(!b"P\r".contains(&bytes[0]));
            for more in [More::Open, More::Stopped, More::Ended, More::Late] {
                prop_assert_eq!(decide(&bytes, false, more), Ok(Step::Serve { length: 0, client: None }));
                prop_assert_eq!(decide(&bytes, true, more), Err(Refusal::Missing));
            }
        }
    }

    #[test]
    fn a_part_behind_the_addresses_that_is_cut_off_is_malformed() {
        let parts = [noop(3), noop(0)].concat();
        for length in 0..=parts.len() {
            let whole = [0, 6, 9].contains(&length);
            let read = decide(&v2([192, 0, 2, 1], 1, &parts[..length]), true, More::Open);
            assert_eq!(read.err(), (!whole).then_some(Refusal::Malformed), "{length}");
        }
    }

    #[test]
    fn a_client_that_says_nothing_is_served_unless_a_header_is_required_and_late() {
        const SERVED: Result<Step, Refusal> = Ok(Step::Serve { length: 0, client: None });
        for required in [false, true] {
            assert_eq!(decide(b"", required, More::Open), Ok(Step::Wait));
            assert_eq!(decide(b"", required, More::Stopped), SERVED);
            assert_eq!(decide(b"", required, More::Ended), SERVED);
        }
        assert_eq!(decide(b"", false, More::Late), SERVED);
        assert_eq!(decide(b"", true, More::Late), Err(Refusal::Slow));
    }

    #[test]
    fn a_header_that_is_too_long_is_refused_before_it_is_whole() {
        assert_eq!(decide(&v2([1; 4], 1, &noop(LONGEST as u16))[..V2_FIXED], false, More::Open), Err(Refusal::TooLong));
        let longest = v2([1; 4], 1, &noop(LONGEST as u16 - 31));
        assert_eq!(longest.len(), LONGEST);
        assert!(matches!(decide(&longest, true, More::Open), Ok(Step::Serve { length: LONGEST, .. })));
        let line = [&b"PROXY UNKNOWN "[..], &[b'1'; V1_LONGEST]].concat();
        assert_eq!(decide(&line[..V1_LONGEST - 1], false, More::Open), Ok(Step::Wait));
        assert_eq!(decide(&line, false, More::Open), Err(Refusal::TooLong));
    }

    #[test]
    fn a_header_of_the_balancer_itself_names_no_client() {
        for header in [
            b"PROXY UNKNOWN\r\n".to_vec(),
            b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(),
            [V2, &[0x20, 0, 0, 0]].concat(),
        ] {
            let length = header.len();
            assert_eq!(decide(&header, true, More::Open), Ok(Step::Serve { length, client: None }));
        }
    }
}
