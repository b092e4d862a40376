//! Asks a service on this machine whether it is alive. It is what a container's healthcheck runs: the images hold
//! nothing but the service's own binary.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use axum::http::Uri;

/// The most time that all of it may take; container engines check every few seconds.
pub const HEALTHCHECK_MAX: Duration = Duration::from_secs(2);

/// As much of the answer as is read: the status line is in it.
const ANSWER_MAX_BYTES: usize = 1024;

/// Asks `/healthz` of the service that listens on `listen`, over loopback if it listens on every address.
/// Exit code 0 if it is alive; otherwise 1, and why on stderr.
pub fn run(listen: SocketAddr) -> ExitCode {
    report(&format!("http://{}/healthz", reachable(listen)))
}

/// Asks `url` in place of it, which must be `http://`.
pub fn run_url(url: &str) -> ExitCode {
    report(url)
}

fn report(url: &str) -> ExitCode {
    match check(url) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("healthcheck: {url}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn check(url: &str) -> io::Result<()> {
    let bad = |text: &str| io::Error::new(io::ErrorKind::InvalidInput, text.to_owned());
    let uri: Uri = url.parse().map_err(|_| bad("not a URL; give one like http://127.0.0.1:8081/healthz"))?;
    let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(bad("only http:// is asked; give a URL like http://127.0.0.1:8081/healthz"));
    };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let port = authority.port_u16().unwrap_or(80);
    let address = (host, port).to_socket_addrs()?.next().ok_or_else(|| bad("the host has no address"))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());

    let end = Instant::now() + HEALTHCHECK_MAX;
    let left = || end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer within 2 s");
    let mut stream = TcpStream::connect_timeout(&address, HEALTHCHECK_MAX)?;
    stream.set_write_timeout(left())?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::with_capacity(ANSWER_MAX_BYTES);
    let mut buffer = [0; ANSWER_MAX_BYTES];
    while !answer.contains(&b'\n') && answer.len() < ANSWER_MAX_BYTES {
        stream.set_read_timeout(Some(left().ok_or_else(late)?))?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Err(late());
            }
            Err(error) => return Err(error),
        }
    }
    let text = String::from_utf8_lossy(&answer);
    let line = text.lines().next().unwrap_or_default();
    match line.split_whitespace().nth(1) {
        Some("200") => Ok(()),
        Some(_) => Err(io::Error::other(format!("answered {line:?}, not 200"))),
        None => Err(io::Error::other("the answer is not HTTP")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// A server that answers one connection with this text.
    fn answering(text: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/healthz", listener.local_addr().unwrap());
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let count = stream.read(&mut request).unwrap();
            assert!(request[..count].starts_with(b"GET /healthz HTTP/1.1\r\n"));
            stream.write_all(text.as_bytes()).unwrap();
        });
        url
    }

    #[test]
    fn alive_is_200_only() {
        check(&answering("HTTP/1.1 200 OK\r\n\r\n")).unwrap();
        let error = check(&answering("HTTP/1.1 503 Service Unavailable\r\n\r\n")).unwrap_err().to_string();
        assert_eq!(error, "answered \"HTTP/1.1 503 Service Unavailable\", not 200");
        assert_eq!(check(&answering("")).unwrap_err().to_string(), "the answer is not HTTP");
    }

    #[test]
    fn a_silent_server_is_given_up_on() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let began = Instant::now();
        let error = check(&format!("http://{}/", listener.local_addr().unwrap())).unwrap_err();
        assert_eq!(error.to_string(), "no answer within 2 s");
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }

    #[test]
    fn only_http_urls_are_asked() {
        for url in ["", "localhost", "https://localhost/", "http://", "/healthz"] {
            assert_eq!(check(url).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{url}");
        }
    }

    #[test]
    fn every_address_is_asked_over_loopback() {
        for (listen, wanted) in
            [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.7:1", "10.0.0.7:1")]
        {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), wanted);
        }
    }
}
