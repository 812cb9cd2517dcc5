use super::testing::{Fake, answer};
use super::*;
use crate::connectors::productive::{self, Productive};

const CAP: u64 = 1_000;
const SHORT: Duration = Duration::from_millis(300);

fn connector() -> Productive {
    Productive::new(productive::Options {
        url: "http://127.0.0.1:1/".parse().expect("a URL"),
        organization: 435,
        resources: Vec::new(),
        exclude: Vec::new(),
        read_lag: Duration::ZERO,
        list_lag: Duration::ZERO,
        keep_deleted: Duration::ZERO,
        tombstones: Duration::ZERO,
        signature_tolerance: None,
    })
    .expect("a connector")
}

fn upstream(root: &Url) -> Upstream {
    sharing(root, ByteBudget::new(10 * CAP))
}

fn sharing(root: &Url, budget: ByteBudget) -> Upstream {
    let options = Options {
        root: root.clone(),
        also: Vec::new(),
        response_max: CAP,
        responses_in_flight: budget,
        connect_timeout: SHORT,
        timeout: SHORT,
    };
    let credentials: Credentials = Arc::new(|which| match which {
        Credential::Read => Ok("the-read-token".to_owned()),
        Credential::Manage => Err("manage_token is not set".to_owned()),
        Credential::Client | Credential::Password => Err("there are no sessions".to_owned()),
    });
    Upstream::new(options, credentials).expect("a client")
}

fn get(url: &str) -> Request {
    Request {
        method: http::Method::GET,
        url: url.to_owned(),
        headers: Vec::new(),
        body: None,
        endpoint: "/tasks".to_owned(),
        credential: Credential::Read,
        declared_write: false,
    }
}

async fn send(own: &Fake, request: &Request) -> Result<Response, SendError> {
    upstream(&own.url).send(&connector(), None, request).await
}

#[tokio::test]
async fn nothing_is_sent_to_another_origin() {
    let (own, other) = (Fake::start(|_| answer(200, "own")).await, Fake::start(|_| answer(200, "other")).await);
    let (own_port, other_port) = (own.url.port().expect("a port"), other.url.port().expect("a port"));
    for url in [
        format!("http://127.0.0.1:{other_port}/tasks"),
        format!("http://localhost:{own_port}/tasks"),
        format!("https://127.0.0.1:{own_port}/tasks"),
        format!("http://someone:secret@127.0.0.1:{own_port}/tasks"),
        format!("http://127.0.0.1:{own_port}@127.0.0.1:{other_port}/tasks"),
        "/tasks".to_owned(),
        "file:///etc/passwd".to_owned(),
    ] {
        let refused = send(&own, &get(&url)).await.expect_err("refused");
        assert!(matches!(refused, SendError::Forbidden(_)) && refused.reach() == Reach::Nobody, "{url}: {refused}");
    }
    assert_eq!((own.asked().len(), other.asked().len()), (0, 0));
    let answered = send(&own, &get(&format!("http://127.0.0.1:{own_port}/tasks"))).await.expect("answered");
    assert_eq!((answered.status, &answered.body[..]), (200, &b"own"[..]));
}

/// Addresses that an upstream may hand out; `/tasks` of the configured origin is the only place where they may lead.
const HOSTILE: [&str; 64] = [
    "",
    "/tasks",
    "tasks",
    "?page=2",
    "//127.0.0.1:8080/tasks",
    "//evil.example/tasks",
    "\\\\evil.example\\tasks",
    "/\\evil.example/tasks",
    "http:\\\\127.0.0.1:8080\\tasks",
    "http:/127.0.0.1:8080/tasks",
    "http:127.0.0.1:8080/tasks",
    "http:///127.0.0.1:8080/tasks",
    "HTTP://127.0.0.1:8080/tasks",
    " http://127.0.0.1:8080/tasks",
    "http://127.0.0.1:8080/tasks ",
    "http://127.0.0.1:8080/ta\tsks",
    "http://127.0.0.1:8080/tasks\r\nhost: evil.example",
    "http://127.0.0.1:8080/tasks HTTP/1.1\r\n\r\nGET /x",
    "ht\ntp://127.0.0.1:8080/tasks",
    "http://127.0.0.1:8080/tasks\0",
    "http://127.0.0.1:8080/tasks#fragment",
    "http://127.0.0.1:8080/tasks/../secret",
    "http://127.0.0.1:8080/tasks/..",
    "http://127.0.0.1:8080/./tasks",
    "http://127.0.0.1:8080/%2e%2e/tasks",
    "http://127.0.0.1:8080/tasks/.%2E/x",
    "http://127.0.0.1:8080\\@evil.example/tasks",
    "http://127.0.0.1:8080@evil.example/tasks",
    "http://127.0.0.1:8080%40evil.example/tasks",
    "http://127.0.0.1:8080.evil.example/tasks",
    "http://127.0.0.1.evil.example:8080/tasks",
    "http://someone:secret@127.0.0.1:8080/tasks",
    "http://someone@127.0.0.1:8080/tasks",
    "http://@127.0.0.1:8080/tasks",
    "http://:@127.0.0.1:8080/tasks",
    "http://evil.example#@127.0.0.1:8080/tasks",
    "http://evil.example?@127.0.0.1:8080/tasks",
    "http://evil.example\\@127.0.0.1:8080/tasks",
    "http://evil.example:8080/tasks",
    "http://127.0.0.2:8080/tasks",
    "http://127.0.0.1/tasks",
    "http://127.0.0.1:80/tasks",
    "http://127.0.0.1:8081/tasks",
    "http://127.0.0.1:08080/tasks",
    "http://127.0.0.1:8080:80/tasks",
    "http://127.0.0.1:808\t0/tasks",
    "https://127.0.0.1:8080/tasks",
    "http://localhost:8080/tasks",
    "http://2130706433:8080/tasks",
    "http://0x7f000001:8080/tasks",
    "http://017700000001:8080/tasks",
    "http://0177.0.0.1:8080/tasks",
    "http://127.1:8080/tasks",
    "http://127.0.0.1.:8080/tasks",
    "http://0.0.0.0:8080/tasks",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::1]:8080/tasks",
    "http://[::ffff:127.0.0.1]:8080/tasks",
    "http://[::ffff:7f00:1]:8080/tasks",
    "http://\u{ff11}\u{ff12}\u{ff17}.0.0.1:8080/tasks",
    "http://127\u{3002}0\u{3002}0\u{3002}1:8080/tasks",
    "file:///etc/passwd",
    "gopher://127.0.0.1:8080/_GET",
    "data:text/plain,http://127.0.0.1:8080/tasks",
];

#[test]
fn hostile_addresses_are_refused_before_anything_is_sent() {
    let upstream = upstream(&"http://127.0.0.1:8080/".parse().expect("a URL"));
    for url in HOSTILE {
        let refused = upstream.checked(&get(url));
        assert!(matches!(refused, Err(SendError::Forbidden(_))), "{url:?}: {refused:?}");
    }
    for url in ["http://127.0.0.1:8080/", "http://127.0.0.1:8080/tasks?page%5Bafter%5D=a%20b&x=%2F..%2F"] {
        assert_eq!(upstream.checked(&get(url)).expect("our own").as_str(), url);
    }
}

#[tokio::test]
async fn a_write_is_sent_only_if_it_is_declared() {
    let own = Fake::start(|_| answer(201, "")).await;
    for method in [http::Method::POST, http::Method::PATCH, http::Method::PUT, http::Method::DELETE] {
        let write = Request { method: method.clone(), ..get(own.url.as_str()) };
        assert!(matches!(send(&own, &write).await, Err(SendError::Forbidden(_))), "{method}");
    }
    assert_eq!(own.asked().len(), 0);
    let declared = Request { method: http::Method::POST, declared_write: true, ..get(own.url.as_str()) };
    assert_eq!(send(&own, &declared).await.expect("answered").status, 201);
    assert!(own.asked()[0].starts_with("POST / "), "{:?}", own.asked());
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let other = Fake::start(|_| answer(200, "")).await;
    let there = other.url.to_string();
    let own = Fake::start(move |head| {
        let there = if head.contains("/same") { "/elsewhere" } else { there.as_str() };
        (format!("HTTP/1.1 302 Found\r\nconnection: close\r\nlocation: {there}\r\ncontent-length: 0\r\n\r\n").into_bytes(), false)
    })
    .await;
    for path in ["same", "other"] {
        assert_eq!(send(&own, &get(&format!("{}{path}", own.url))).await.expect("an answer").status, 302);
    }
    assert_eq!((own.asked().len(), other.asked().len()), (2, 0), "the credential goes nowhere else");
}

#[tokio::test]
async fn an_answer_above_the_cap_is_given_up() {
    let chunked = |n: usize| {
        let chunk = format!("{:x}\r\n{}\r\n", 500, "x".repeat(500));
        format!("HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n{}0\r\n\r\n", chunk.repeat(n))
    };
    let own = Fake::start(move |head| match head {
        head if head.contains("/stated") => (b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n".to_vec(), true),
        head if head.contains("/endless") => (chunked(3).into_bytes(), false),
        head if head.contains("/chunks") => (chunked(2).into_bytes(), false),
        _ => answer(200, &"x".repeat(1_000)),
    })
    .await;
    for path in ["stated", "endless"] {
        let refused = send(&own, &get(&format!("{}{path}", own.url))).await.expect_err("too large");
        assert_eq!(refused, SendError::TooLarge(CAP), "{path}");
        assert_eq!(refused.reach(), Reach::Answered, "the upstream has counted it");
    }
    for path in ["chunks", "exact"] {
        assert_eq!(send(&own, &get(&format!("{}{path}", own.url))).await.expect("fits").body.len(), 1_000);
    }
}

#[tokio::test]
async fn silence_and_torn_answers_end_in_time_after_one_attempt() {
    let own = Fake::start(|head| match head {
        head if head.contains("/silent") => (Vec::new(), true),
        head if head.contains("/half") => (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".to_vec(), true),
        head if head.contains("/torn") => (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".to_vec(), false),
        _ => (Vec::new(), false),
    })
    .await;
    let (unknown, answered) = (Reach::Unknown, Reach::Answered);
    let ends = [
        ("silent", "timeout", unknown),
        ("half", "timeout", unknown),
        ("torn", "broken_off", answered),
        ("closed", "interrupted", unknown),
    ];
    for (path, name, reach) in ends {
        let error = send(&own, &get(&format!("{}{path}?secret=1", own.url))).await.expect_err("no answer");
        assert_eq!(error.name(), name, "{path}: {error}");
        assert!(error.reach() == reach && !error.to_string().contains("secret"), "{error}");
    }
    assert_eq!(own.asked().len(), 4, "one call is one attempt on the wire");
}

#[tokio::test]
async fn who_cannot_be_reached_has_counted_nothing() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let root: Url = format!("http://127.0.0.1:{gone}/").parse().expect("a URL");
    let error = upstream(&root).send(&connector(), None, &get(root.as_str())).await.expect_err("nobody is there");
    assert!(error.name() == "connect" && error.reach() == Reach::Nobody, "{error}");
}

#[tokio::test]
async fn the_credential_goes_along_and_without_it_nothing_goes() {
    let own = Fake::start(|_| answer(200, "")).await;
    send(&own, &get(own.url.as_str())).await.expect("answered");
    let asked = own.asked().remove(0).to_lowercase();
    assert!(asked.contains("\r\nx-auth-token: the-read-token\r\n") && asked.contains("\r\nx-organization-id: 435\r\n"), "{asked}");
    let manage = Request { credential: Credential::Manage, ..get(own.url.as_str()) };
    assert!(matches!(send(&own, &manage).await, Err(SendError::Credential(_))));
    assert_eq!(own.asked().len(), 1);
}

#[tokio::test]
async fn an_upstream_that_answers_nothing_leaves_the_room_for_answers_to_others() {
    let (silent, own) = (Fake::start(|_| (Vec::new(), true)).await, Fake::start(|_| answer(200, "own")).await);
    let budget = ByteBudget::new(CAP);
    let (ailing, well) = (sharing(&silent.url, budget.clone()), sharing(&own.url, budget));
    let (connector, asked, wanted) = (connector(), get(silent.url.as_str()), get(own.url.as_str()));
    let many = futures_util::future::join_all((0..8).map(|_| ailing.send(&connector, None, &asked)));
    let (ailing, well) = futures_util::future::join(many, well.send(&connector, None, &wanted)).await;
    assert_eq!(well.expect("answered meanwhile").status, 200);
    assert!(ailing.iter().all(|sent| sent.as_ref().is_err_and(|error| error.name() == "timeout")));
}

#[tokio::test]
async fn a_credential_that_no_header_can_carry_is_not_sent_and_not_repeated() {
    let own = Fake::start(|_| answer(200, "own")).await;
    let credentials: Credentials = Arc::new(|_| Ok("hunter2\nx-other: header".to_owned()));
    let upstream = Upstream { credentials, ..upstream(&own.url) };
    let error = upstream.send(&connector(), None, &get(own.url.as_str())).await.expect_err("it cannot be sent");
    assert!(matches!(error, SendError::Credential(_)) && error.reach() == Reach::Nobody, "{error:?}");
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
}

fn gzipped(body: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(body).expect("memory has room");
    encoder.finish().expect("memory has room")
}

fn encoded(body: &[u8]) -> testing::Told {
    let head = format!("HTTP/1.1 200 Said\r\nconnection: close\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", body.len());
    ([head.as_bytes(), body].concat(), false)
}

#[tokio::test]
async fn gzip_is_asked_for_and_what_comes_is_decoded() {
    let own = Fake::start(|_| encoded(&gzipped(b"{\"value\":[]}"))).await;
    let response = send(&own, &get(own.url.as_str())).await.expect("an answer");
    assert_eq!(response.body, "{\"value\":[]}");
    // What stood there was true of other bytes.
    assert_eq!((response.header("content-encoding"), response.header("content-length")), (None, None));
    assert!(own.asked()[0].to_lowercase().contains("\r\naccept-encoding: gzip\r\n"), "{:?}", own.asked());
}

#[tokio::test]
async fn the_cap_holds_for_what_comes_out_of_gzip() {
    for (size, fits) in [(CAP as usize, true), (CAP as usize + 1, false), (100_000_000, false)] {
        let bomb = gzipped(&vec![b'0'; size]);
        let own = Fake::start(move |_| encoded(&bomb)).await;
        let own_upstream =
            Upstream { options: Arc::new(Options { timeout: SHORT * 50, ..(*upstream(&own.url).options).clone() }), ..upstream(&own.url) };
        // What is sent of the second one is within the cap; what comes out of it is not.
        let answer = own_upstream.send(&connector(), None, &get(own.url.as_str())).await;
        assert_eq!(answer.map(|response| response.body.len()), if fits { Ok(size) } else { Err(SendError::TooLarge(CAP)) });
    }
}

#[tokio::test]
async fn a_broken_gzip_is_an_answer_that_broke_off() {
    let whole = gzipped(b"{\"value\":[1,2,3,4,5,6,7,8,9]}");
    let mut turned = whole.clone();
    let middle = turned.len() - 6;
    turned[middle] ^= 0xff;
    for body in [whole[..whole.len() - 9].to_vec(), whole[..12].to_vec(), turned, b"no gzip at all".to_vec()] {
        let own = Fake::start(move |_| encoded(&body)).await;
        let error = send(&own, &get(own.url.as_str())).await.expect_err("broken");
        assert!(matches!(error, SendError::BrokenOff(_)), "{error:?}");
        assert_eq!(error.reach(), Reach::Answered);
    }
}
