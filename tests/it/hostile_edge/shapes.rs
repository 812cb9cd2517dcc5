//! Requests that two readers of HTTP may read differently, and how ours reads them.

use super::ROUTE;
use crate::support::universe::{TOKEN, about_task, signature};

/// Bytes on one connection, and what is to become of them.
pub(super) struct Shape {
    pub(super) name: &'static str,
    pub(super) bytes: Vec<u8>,
    /// The statuses of all answers on that connection.
    pub(super) answers: Vec<u16>,
    /// Bodies that are signed rightly, and whether they are to be stored.
    pub(super) bodies: Vec<(String, bool)>,
}

/// A whole signed request with further header lines, and `connection: close`.
pub(super) fn signed(headers: &str, body: &str) -> Vec<u8> {
    head(&format!("content-length: {}\r\nconnection: close\r\n{headers}", body.len()), body, body)
}

/// A request whose signature is right for `body`, with `sent` after its header.
fn head(headers: &str, body: &str, sent: &str) -> Vec<u8> {
    start(&format!("POST /hooks/pmp/{ROUTE} HTTP/1.1\r\nhost: hooks.example\r\n"), headers, body, sent)
}

fn start(line: &str, headers: &str, body: &str, sent: &str) -> Vec<u8> {
    format!("{line}productive-signature: {}\r\n{headers}\r\n{sent}", signature(TOKEN, body)).into_bytes()
}

/// All of them. Behind every first request stands a second that is signed rightly: if it is stored, it was smuggled in.
pub(super) fn all() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for (number, (name, headers, sent, answer)) in framing().into_iter().enumerate() {
        let outer = about_task("1", &format!("outer {number}"));
        let inner = about_task("1", &format!("smuggled {number}"));
        let fill = |text: &str| text.replace("{len}", &outer.len().to_string()).replace("{hex}", &format!("{:x}", outer.len()));
        let second = String::from_utf8(signed("", &inner)).expect("it is text");
        let sent = fill(sent).replace("{body}", &outer) + &second;
        let headers = fill(headers).replace("{all}", &sent.len().to_string());
        let bodies = vec![(outer.clone(), answer == 200), (inner, false)];
        shapes.push(Shape { name, bytes: head(&headers, &outer, &sent), answers: vec![answer], bodies });
    }
    shapes.extend(lines());
    shapes.extend(pipelines());
    shapes
}

const CHUNKED: &str = "transfer-encoding: chunked\r\n";
const ONE_CHUNK: &str = "{hex}\r\n{body}\r\n0\r\n\r\n";

/// How long the body is: name, header lines, what is sent, the answer.
fn framing() -> Vec<(&'static str, &'static str, &'static str, u16)> {
    vec![
        ("length and chunks", "content-length: {all}\r\ntransfer-encoding: chunked\r\n", ONE_CHUNK, 200),
        ("chunks and length", "transfer-encoding: chunked\r\ncontent-length: 4\r\n", ONE_CHUNK, 200),
        ("chunks that end at once", "content-length: {all}\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n", 401),
        ("two transfer encodings", "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n", ONE_CHUNK, 400),
        ("chunked is not last", "transfer-encoding: chunked, identity\r\n", ONE_CHUNK, 400),
        ("an unknown transfer encoding", "transfer-encoding: xchunked\r\n", ONE_CHUNK, 400),
        ("a space before the colon", "transfer-encoding : chunked\r\n", ONE_CHUNK, 400),
        ("a tab before the value", "transfer-encoding:\tchunked\r\n", ONE_CHUNK, 200),
        ("a folded header", "x-one: a\r\n b\r\ncontent-length: {len}\r\n", "{body}", 400),
        ("a folded length", "content-length:\r\n {len}\r\n", "{body}", 400),
        ("a line that begins with a space", " content-length: {len}\r\n", "{body}", 400),
        ("two lengths", "content-length: {len}\r\ncontent-length: {all}\r\n", "{body}", 400),
        ("two lengths in one", "content-length: {len}, {all}\r\n", "{body}", 400),
        ("a negative length", "content-length: -1\r\n", "{body}", 400),
        ("a length with a plus", "content-length: +{len}\r\n", "{body}", 400),
        ("a length in hexadecimal", "content-length: 0x{hex}\r\n", "{body}", 400),
        ("a length with a space in it", "content-length: 1 0\r\n", "{body}", 400),
        ("a length with letters", "content-length: {len}abc\r\n", "{body}", 400),
        ("an empty length", "content-length: \r\n", "{body}", 400),
        ("a length beyond 64 bits", "content-length: 99999999999999999999999\r\n", "{body}", 400),
        ("a chunk extension", CHUNKED, "{hex};name=value\r\n{body}\r\n0\r\n\r\n", 200),
        ("a chunk extension with a bare line feed", CHUNKED, "{hex};name=\nvalue\r\n{body}\r\n0\r\n\r\n", 400),
        ("a chunk size with a plus", CHUNKED, "+{hex}\r\n{body}\r\n0\r\n\r\n", 400),
        ("a chunk size with a minus", CHUNKED, "-{hex}\r\n{body}\r\n0\r\n\r\n", 400),
        ("a chunk size with 0x", CHUNKED, "0x{hex}\r\n{body}\r\n0\r\n\r\n", 400),
        ("a chunk size beyond 64 bits", CHUNKED, "fffffffffffffffff{hex}\r\n{body}\r\n0\r\n\r\n", 400),
        ("a chunk size and a bare line feed", CHUNKED, "{hex}\n{body}\r\n0\r\n\r\n", 400),
        ("a chunk that is longer than it says", CHUNKED, "1\r\n{body}\r\n0\r\n\r\n", 400),
        ("trailers", CHUNKED, "{hex}\r\n{body}\r\n0\r\ncontent-length: 3\r\n\r\n", 200),
        ("a null byte in a value", "x-null: a\0b\r\ncontent-length: {len}\r\n", "{body}", 400),
        ("a null byte in a name", "x-nu\0ll: a\r\ncontent-length: {len}\r\n", "{body}", 400),
        ("a bare carriage return", "x-bare: a\rcontent-length: 1\r\ncontent-length: {len}\r\n", "{body}", 400),
        ("a second host", "host: other.example\r\ncontent-length: {len}\r\n", "{body}", 400),
        ("the same host twice", "host: hooks.example\r\ncontent-length: {len}\r\n", "{body}", 400),
        ("neither length nor chunks", "connection: close\r\n", "", 401),
    ]
}

/// What else the first lines may hold.
fn lines() -> Vec<Shape> {
    let path = format!("/hooks/pmp/{ROUTE}");
    let host = "host: hooks.example\r\n";
    let cases: Vec<(&'static str, String, u16)> = vec![
        ("no host", format!("POST {path} HTTP/1.1\r\n"), 400),
        ("an empty host", format!("POST {path} HTTP/1.1\r\nhost: \r\n"), 400),
        ("absolute form", format!("POST http://hooks.example{path} HTTP/1.1\r\n{host}"), 200),
        ("absolute form of another host", format!("POST http://other.example{path} HTTP/1.1\r\n{host}"), 200),
        ("two spaces", format!("POST  {path} HTTP/1.1\r\n{host}"), 400),
        ("a tab", format!("POST\t{path} HTTP/1.1\r\n{host}"), 400),
        ("a null byte in the path", format!("POST {path}\0 HTTP/1.1\r\n{host}"), 400),
        ("a method in small letters", format!("post {path} HTTP/1.1\r\n{host}"), 401),
        ("a tunnel", format!("CONNECT hooks.example:443 HTTP/1.1\r\n{host}"), 400),
        ("the whole server", format!("OPTIONS * HTTP/1.1\r\n{host}"), 400),
        ("another version", format!("POST {path} HTTP/1.2\r\n{host}"), 400),
        ("HTTP/2 without TLS", "PRI * HTTP/2.0\r\n".to_owned(), 400),
        ("an upgrade", format!("POST {path} HTTP/1.1\r\n{host}connection: upgrade, http2-settings\r\nupgrade: h2c\r\n"), 200),
        ("bare line feeds", format!("POST {path} HTTP/1.1\nhost: hooks.example\n"), 200),
    ];
    let shape = |(number, (name, line, answer)): (usize, (&'static str, String, u16))| {
        let outer = about_task("1", &format!("line {number}"));
        let headers = format!("content-length: {}\r\nconnection: close\r\n", outer.len());
        let bytes = start(&line, &headers, &outer, &outer);
        Shape { name, bytes, answers: vec![answer], bodies: vec![(outer, answer == 200)] }
    };
    cases.into_iter().enumerate().map(shape).collect()
}

/// Two requests on one connection are two requests; but not where the first was refused.
fn pipelines() -> Vec<Shape> {
    let (one, two, three) = (about_task("1", "first"), about_task("1", "second"), about_task("1", "never"));
    let kept = |body: &str| head(&format!("content-length: {}\r\n", body.len()), body, body);
    let unsigned = b"POST /hooks/pmp/task-updated HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}".to_vec();
    vec![
        Shape {
            name: "a pipeline",
            bytes: [kept(&one), signed("", &two)].concat(),
            answers: vec![200, 200],
            bodies: vec![(one, true), (two, true)],
        },
        Shape {
            name: "a pipeline behind a refusal",
            bytes: [unsigned, signed("", &three)].concat(),
            answers: vec![401],
            bodies: vec![(three, false)],
        },
    ]
}
