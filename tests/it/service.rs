//! As the service manager sees the daemon: messages, signals and exit codes.

use std::time::Duration;

use crate::support::process::instep;
use crate::support::universe::about_task;
use crate::support::{Database, Engine, Notify, Setup, Universe, eventually, monotonic, on_both, run};

on_both!(the_service_manager_hears_of_every_step);

const SOON: Duration = Duration::from_secs(20);

async fn the_service_manager_hears_of_every_step(database: Database) {
    let mut universe = Universe::new(database, &Setup { entities: 100, ..Setup::default() });
    let notify = Notify::at(universe.folder("notify"));
    let mut command = universe.command();
    notify.hears(&mut command);
    universe.launch(command.env("WATCHDOG_USEC", "900000"));
    notify.wait("READY=1", SOON).await;
    // Several signs of life, for one could be chance.
    for _ in 0..3 {
        notify.forget("WATCHDOG=1");
        notify.wait("WATCHDOG=1", SOON).await;
    }
    universe.ready().await;
    let key = universe.sandbox.keys("tasks").await.remove(0);
    universe.deliver_surely("task-updated", &about_task(&key, "before the end")).await;
    universe.daemon().signal("TERM");
    notify.wait("STOPPING=1", SOON).await;
    assert_eq!(universe.daemon().exit_code(SOON).await, Some(0), "stopped in order");
    let mut heard = notify.heard();
    assert!(heard.iter().any(|line| line.starts_with("STATUS=")), "{heard:?}");
    assert_eq!(universe.database.number("select count(*) as n from instep_delivery").await, 1, "what was acknowledged is there");
    heard.dedup();
    println!("service {:?}: {heard:?}", universe.database.engine);
}

#[test]
fn a_second_term_ends_it_at_once() {
    run(Engine::Sqlite, second_term);
}

async fn second_term(database: Database) {
    let mut universe = Universe::new(database, &Setup { entities: 100, ..Setup::default() });
    universe.run().await;
    // A request that is not finished holds the drain up.
    let mut half = std::net::TcpStream::connect(("127.0.0.1", universe.hooks_port)).expect("connected");
    let signature = crate::support::universe::signature(crate::support::universe::TOKEN, "");
    let head =
        format!("POST /hooks/pmp/task-updated HTTP/1.1\r\nhost: a\r\nproductive-signature: {signature}\r\ncontent-length: 9\r\n\r\nhalf");
    std::io::Write::write_all(&mut half, head.as_bytes()).expect("sent");
    // It is in the daemon's hands once the request after it was answered.
    universe.deliver_surely("task-updated", &about_task("1", "after it")).await;
    universe.daemon().signal("TERM");
    eventually("it is stopping", SOON, async || {
        let said = universe.daemon().said();
        if said.contains("\"stopping\"") { Ok(()) } else { Err(said) }
    })
    .await;
    assert!(universe.daemon().ended().is_none(), "it waits for the request");
    let begin = monotonic();
    universe.daemon().signal("TERM");
    let code = universe.daemon().exit_code(SOON).await;
    let took = monotonic() - begin;
    println!("service: ended {took:.1?} after the second TERM with {code:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    drop(half);
}

#[test]
fn exit_codes_say_whose_mistake_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("instep.toml");
    let config = path.to_str().expect("a path of text");
    let state = [("STATE_DIRECTORY", folder.path().to_str().expect("a path of text"))];
    let code = |arguments: &[&str]| instep(arguments, &state).status.code();
    assert_eq!(code(&["no-such-verb"]), Some(64));
    assert_eq!(code(&["run", "--no-such-option"]), Some(64));
    assert_eq!(code(&["--help"]), Some(0));
    assert_eq!(code(&["run", "--config", config]), Some(78), "there is no such file");

    let wrong = "[listen]\nhoks = \"127.0.0.1:1\"\n[limits]\ndrain = 5\n[sources.pmp]\nkind = \"productive\"\norganization = \"x\"\n";
    std::fs::write(&path, wrong).expect("our own folder");
    for verb in ["run", "check"] {
        let output = instep(&[verb, "--config", config], &state);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        println!("service: {verb} of a wrong configuration:\n{said}");
        assert_eq!(output.status.code(), Some(78), "{verb}");
        for (place, key) in [("2:", "listen.hoks"), ("4:", "limits.drain"), ("7:", "sources.pmp.organization")] {
            let is_told = said.lines().any(|line| line.contains(&format!("instep.toml:{place}")) && line.contains(key));
            assert!(is_told, "{verb} tells of {key} with its place: {said}");
        }
        assert!(said.contains("sources.pmp.token") || said.contains("token"), "{verb} tells what is missing: {said}");
    }

    let right = "[listen]\nhooks = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n[sources.pmp]\nkind = \"productive\"\norganization = 1\n\
                 token = { env = \"PMP_TOKEN\" }\n";
    std::fs::write(&path, right).expect("our own folder");
    assert_eq!(code(&["check", "--config", config]), Some(0));
}

#[test]
fn a_token_that_is_none_is_a_mistake_of_the_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("instep.toml");
    let config = path.to_str().expect("a path of text");
    let state =
        [("STATE_DIRECTORY", folder.path().to_str().expect("a path of text")), ("SHORT", "abc"), ("SPACED", "sixteen bytes and a space")];
    let source = "[sources.pmp]\nkind = \"productive\"\norganization = 1\ntoken = { env = \"PMP_TOKEN\" }\n";
    let admin = |token: &str| format!("admin = {{ address = \"127.0.0.1:0\", token = {token} }}");
    let api = |token: &str| {
        let tokens = format!("[{{ name = \"portal\", token = {token}, sources = [\"pmp\"] }}]");
        format!("admin = \"127.0.0.1:0\"\napi = {{ address = \"127.0.0.1:0\", tokens = {tokens} }}")
    };
    let absent = format!("{{ file = {:?} }}", folder.path().join("nothing"));
    for token in ["{ env = \"SHORT\" }", "{ env = \"SPACED\" }", "{ env = \"NO_SUCH_VARIABLE\" }", &absent] {
        for (listen, name) in [(admin(token), "listen.admin.token"), (api(token), "`portal`")] {
            std::fs::write(&path, format!("[listen]\nhooks = \"127.0.0.1:0\"\n{listen}\n{source}")).expect("our own folder");
            let output = instep(&["run", "--config", config], &state);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            println!("service: {:?} {}", output.status.code(), said.lines().last().unwrap_or_default());
            assert_eq!(output.status.code(), Some(78), "{listen}: {said}");
            assert!(said.contains(name) && !said.contains("abc") && !said.contains("sixteen bytes"), "{said}");
        }
    }
}
