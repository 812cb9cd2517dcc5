//! What the tests share: real processes, both stores, and one way to wait.
//!
//! [`on_both!`] makes two tests of every function, one a store. A [`Universe`] is a fake upstream and a daemon, both the real
//! binary as processes of their own, over a fresh [`Database`]. Nothing is left behind when a test ends, however it ends.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::LazyLock;
use std::time::Duration;

use futures_util::FutureExt as _;
use instep::clock::Clock;

pub(crate) mod api;
pub(crate) mod canaries;
pub(crate) mod database;
pub(crate) mod gate;
pub(crate) mod hostile;
pub(crate) mod latency;
pub(crate) mod load;
pub(crate) mod mls;
pub(crate) mod notify;
pub(crate) mod own_server;
pub(crate) mod pace;
pub(crate) mod pim;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod replica;
pub(crate) mod sandbox;
pub(crate) mod splice;
pub(crate) mod strace;
pub(crate) mod universe;
pub(crate) mod upstreams;

pub(crate) use database::{Database, Engine};
pub(crate) use gate::Gate;
pub(crate) use load::Load;
pub(crate) use mls::Mls;
pub(crate) use notify::Notify;
pub(crate) use own_server::OwnServer;
pub(crate) use pace::Paced;
pub(crate) use pim::Pim;
pub(crate) use process::Process;
pub(crate) use sandbox::Sandbox;
pub(crate) use splice::Splice;
pub(crate) use strace::Strace;
pub(crate) use universe::{Setup, Universe};
pub(crate) use upstreams::Upstream;

/// How often a condition is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Makes a test a store of every function `async fn(Database)`.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[test] fn $name() { crate::support::run(crate::support::Engine::Sqlite, super::$name); })+
        }
        mod on_postgres {
            $(#[test] fn $name() { crate::support::run(crate::support::Engine::Postgres, super::$name); })+
        }
    };
}
pub(crate) use on_both;

/// Runs a test over a fresh database, which goes whatever becomes of the test.
pub(crate) fn run<F: Future<Output = ()>>(engine: Engine, test: impl FnOnce(Database) -> F) {
    on_runtime(async {
        let Some(database) = Database::fresh(engine).await else { return };
        run_over(database, test).await;
    });
}

/// As [`run`], over a PostgreSQL server of the test's own, which it may stop.
pub(crate) fn run_on_own_server<F: Future<Output = ()>>(test: impl FnOnce(Database, OwnServer) -> F) {
    on_runtime(async {
        let Some(server) = OwnServer::start() else {
            skipped("a PostgreSQL server of one's own: there are no binaries of one");
            return;
        };
        let database = Database::of_server(server.url());
        run_over(database, |database| test(database, server)).await;
    });
}

async fn run_over<F: Future<Output = ()>>(database: Database, test: impl FnOnce(Database) -> F) {
    let outcome = AssertUnwindSafe(test(database.clone())).catch_unwind().await;
    database.remove().await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

fn on_runtime(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(test);
}

/// Looks until the condition holds, and answers with what it found; the only place where a test waits.
///
/// # Panics
/// When it does not hold within the deadline; the last reason is told.
pub(crate) async fn eventually<T>(what: &str, deadline: Duration, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let begin = monotonic();
    loop {
        // Boxed, for the types of futures within futures are as deep as the compiler goes.
        match Box::pin(look()).await {
            Ok(found) => return found,
            Err(reason) if monotonic() - begin > deadline => panic!("{what}: not within {deadline:?}: {reason}"),
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// Waits for the moment at which something is to happen; a moment is no condition, so this is not for what a test expects.
pub(crate) async fn until(moment: Duration) {
    eventually("a moment", Duration::from_secs(3600), async || match monotonic() {
        now if now >= moment => Ok(()),
        _ => Err("it is not yet there".to_owned()),
    })
    .await;
}

/// Monotonic time since the first question for it.
pub(crate) fn monotonic() -> Duration {
    static CLOCK: LazyLock<Clock> = LazyLock::new(Clock::system);
    CLOCK.monotonic()
}

/// Whether the long forms are asked for.
pub(crate) fn is_long() -> bool {
    std::env::var_os("INSTEP_LONG").is_some_and(|value| value != "0")
}

/// Says that a part is not shown on this machine. In CI everything must be shown.
///
/// # Panics
/// When `CI` is set.
pub(crate) fn skipped(what: &str) {
    println!("SKIPPED {what}");
    assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: {what}");
}
