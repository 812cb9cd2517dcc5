use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;
use warp::{Filter, Reply};

use super::*;
use crate::http::testing::{Answer, eventually, serve, serve_with_sign, to_end, until};

const SHORT: Duration = Duration::from_millis(150);

fn short() -> Options {
    Options { header_timeout: SHORT, linger: SHORT, drain_deadline: SHORT, ..Options::default() }
}

/// `/echo` gives the body back, `/panic` panics, `/wait` answers when told to.
fn routes(go: &Arc<Notify>) -> Routes {
    let go = Arc::clone(go);
    let echo = warp::path!("echo").and(warp::body::bytes()).map(|body: bytes::Bytes| body.to_vec().into_response());
    let panic = warp::path!("panic").map(|| -> Response { panic!("a bug, for the test") });
    let wait = warp::path!("wait").then(move || {
        let go = Arc::clone(&go);
        async move {
            go.notified().await;
            plain(StatusCode::OK, "waited\n")
        }
    });
    echo.or(panic).unify().or(wait).unify().recover(|_| async { Ok::<_, Infallible>(plain(StatusCode::NOT_FOUND, "")) }).unify().boxed()
}

#[tokio::test]
async fn silent_and_half_header_connections_are_closed_in_time() {
    let served = serve(routes(&Arc::default()), short()).await;
    for sent in ["", "POST /echo HTTP/1.1\r\nHost: a\r\nX-Half"] {
        let mut stream = served.connect().await;
        stream.write_all(sent.as_bytes()).await.expect("sent");
        let closed = tokio::time::timeout(SHORT * 10, to_end(&mut stream)).await;
        assert_eq!(closed.expect("closed within its limit"), "", "{sent:?}");
    }
}

#[tokio::test]
async fn an_idle_kept_alive_connection_serves_twice_and_is_closed_in_time() {
    let served = serve(routes(&Arc::default()), short()).await;
    let mut stream = served.connect().await;
    for body in ["one", "two"] {
        let request = format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).await.expect("sent");
        assert!(until(&mut stream, body).await.starts_with("HTTP/1.1 200"));
    }
    let closed = tokio::time::timeout(SHORT * 10, to_end(&mut stream)).await;
    assert_eq!(closed.expect("closed within its limit"), "");
}

#[tokio::test]
async fn a_request_has_exactly_one_host() {
    let served = serve(routes(&Arc::default()), short()).await;
    for hosts in ["", "Host: a\r\nHost: a\r\n", "Host: a\r\nHost: b\r\n", "Host:\r\n"] {
        let answer = served.raw(format!("GET /echo HTTP/1.1\r\n{hosts}\r\n").as_bytes()).await;
        assert_eq!(Answer::parse(&answer).status, 400, "{hosts:?}: {answer}");
    }
    assert_eq!(served.ask("GET", "/echo", &[], "").await.status, 200);
}

#[tokio::test]
async fn headers_have_a_size_and_a_number() {
    let served = serve(routes(&Arc::default()), short()).await;
    let large = format!("GET /echo HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(40_000));
    assert_eq!(Answer::parse(&served.raw(large.as_bytes()).await).status, 431);
    let many = format!("GET /echo HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(64));
    assert_eq!(Answer::parse(&served.raw(many.as_bytes()).await).status, 431);
}

/// A proxy in front may believe the length where we believe the chunks: what follows must not become a second request.
#[tokio::test]
async fn with_length_and_chunks_the_chunks_count_and_the_connection_closes() {
    let served = serve(routes(&Arc::default()), short()).await;
    let smuggled = "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n";
    let request =
        format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n{smuggled}");
    let answer = served.raw(request.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    let answer = Answer::parse(&answer);
    assert!(answer.status == 400 || (answer.status == 200 && answer.body == "abc"), "{answer:?}");
}

#[tokio::test]
async fn a_panic_is_a_500_and_the_next_request_is_served() {
    let served = serve(routes(&Arc::default()), short()).await;
    assert_eq!(served.ask("GET", "/panic", &[], "").await.status, 500);
    assert_eq!(served.ask("POST", "/echo", &[], "still here").await.body, "still here");
}

#[tokio::test]
async fn a_handler_that_never_answers_is_given_up() {
    let served = serve(routes(&Arc::default()), Options { request_deadline: SHORT, ..short() }).await;
    assert_eq!(served.ask("GET", "/wait", &[], "").await.status, 503);
}

#[tokio::test]
async fn connections_above_the_cap_wait_for_a_free_place() {
    let go = Arc::new(Notify::new());
    let served = serve(routes(&go), Options { connections_max: 1, ..short() }).await;
    let first = served.ask("GET", "/wait", &[], "");
    let second = served.ask("POST", "/echo", &[], "second");
    let mut first = pin!(first);
    let mut second = pin!(second);
    tokio::select! {
        _ = &mut first => panic!("nobody told it to go"),
        () = eventually(|| go_is_awaited(&go)) => {}
    }
    assert!(tokio::time::timeout(SHORT, &mut second).await.is_err(), "served above the cap");
    go.notify_one();
    assert_eq!(first.await.body, "waited\n");
    assert_eq!(second.await.body, "second");
}

#[tokio::test]
async fn a_caller_gets_the_place_of_who_is_silent_or_sends_slowly() {
    let options = Options { connections_max: 2, header_timeout: Duration::from_secs(60), ..short() };
    let served = serve(routes(&Arc::default()), options).await;
    let (mut silent, mut slow) = (served.connect().await, served.connect().await);
    slow.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n").await.expect("sent");
    until(&mut slow, "100 Continue").await;
    let mut kept = served.connect().await;
    assert_eq!(to_end(&mut silent).await, "", "silence goes first");
    for body in ["one", "two"] {
        kept.write_all(format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n{body}").as_bytes()).await.expect("sent");
        assert!(until(&mut kept, body).await.starts_with("HTTP/1.1 200"));
    }
    drop(kept);
    let others = [served.ask("POST", "/echo", &[], "three"), served.ask("POST", "/echo", &[], "four")];
    for (answer, body) in futures_util::future::join_all(others).await.into_iter().zip(["three", "four"]) {
        assert_eq!((answer.status, answer.body.as_str()), (200, body));
    }
}

/// Whether the handler of `/wait` has begun: it holds a clone.
fn go_is_awaited(go: &Arc<Notify>) -> bool {
    Arc::strong_count(go) > 2
}

#[tokio::test]
async fn draining_lets_a_running_request_end() {
    let go = Arc::new(Notify::new());
    let served = serve(routes(&go), Options { drain_deadline: Duration::from_secs(5), ..short() }).await;
    let idle = served.connect().await;
    let mut busy = served.connect().await;
    busy.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
    eventually(|| go_is_awaited(&go)).await;
    served.shutdown.cancel();
    go.notify_one();
    assert!(to_end(&mut busy).await.ends_with("waited\n"));
    drop(idle);
    assert_eq!(served.serving.await.expect("no panic"), Drained { aborted: 0 });
}

#[tokio::test]
async fn the_drain_deadline_holds_with_a_half_sent_request() {
    let options = Options { header_timeout: Duration::from_secs(60), ..short() };
    let served = serve(routes(&Arc::default()), options).await;
    let mut half_header = served.connect().await;
    half_header.write_all(b"POST /echo HTTP/1.1\r\nHost").await.expect("sent");
    let mut half_body = served.connect().await;
    half_body.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n").await.expect("sent");
    until(&mut half_body, "100 Continue").await;
    served.shutdown.cancel();
    let drained = tokio::time::timeout(SHORT * 10, served.serving).await.expect("within the deadline").expect("no panic");
    assert_eq!(drained, Drained { aborted: 2 });
    assert_eq!(to_end(&mut half_body).await, "");
}

#[tokio::test]
async fn an_old_connection_has_to_leave() {
    let options = Options { header_timeout: Duration::from_secs(60), connection_age_max: SHORT, request_deadline: SHORT, ..short() };
    let served = serve(routes(&Arc::default()), options).await;
    let mut stream = served.connect().await;
    stream.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nPOST /ec").await.expect("sent");
    until(&mut stream, "200 OK").await;
    tokio::time::timeout(SHORT * 10, to_end(&mut stream)).await.expect("closed at its age");
}

#[tokio::test]
async fn the_loop_gives_signs_of_life_while_idle_and_while_draining() {
    let signs = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&signs);
    let sign: Sign = Arc::new(move || {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let options = Options { header_timeout: Duration::from_secs(60), drain_deadline: Duration::from_secs(60), ..short() };
    let served = serve_with_sign(routes(&Arc::default()), options, sign).await;
    eventually(|| signs.load(Ordering::Relaxed) >= 2).await;
    let mut half = served.connect().await;
    half.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n").await.expect("sent");
    until(&mut half, "100 Continue").await;
    served.shutdown.cancel();
    let before = signs.load(Ordering::Relaxed);
    eventually(|| signs.load(Ordering::Relaxed) >= before + 2).await;
    assert!(!served.serving.is_finished());
}

#[test]
fn accept_failures_pause_longer_and_longer_but_not_for_ever() {
    assert_eq!(accept_pause(0), Duration::from_millis(20));
    assert_eq!(accept_pause(1), Duration::from_millis(40));
    assert_eq!(accept_pause(u32::MAX), Duration::from_secs(1));
}
