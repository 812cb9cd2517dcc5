//! The server goes away.

use crate::support::{Database, OwnServer, Setup, Universe, eventually, monotonic, run_on_own_server};

use super::{RECOVERED, Watched, span};

#[test]
fn a_server_that_goes_away_is_waited_for() {
    run_on_own_server(outages);
}

async fn outages(database: Database, server: OwnServer) {
    let mut universe = Universe::new(database, &Setup { entities: 6_000, ..Setup::default() });
    universe.run().await;
    let mut watched = Watched::start("postgres", &mut universe).await;
    let sql = "select count(*) as n from instep_resources where complete_as_of is not null";
    assert_eq!(watched.universe.database.number(sql).await, 0, "the backfill is still running when the server goes");
    watched.universe.database.disconnect().await;
    watched
        .outage(
            "stopped during the backfill",
            span(120),
            async || {
                server.down();
                monotonic()
            },
            async || server.up(),
        )
        .await;
    watched.universe.swept().await;
    watched
        .outage(
            "frozen",
            span(60),
            async || {
                server.freeze();
                monotonic()
            },
            async || server.thaw(),
        )
        .await;
    watched
        .outage(
            "read-only",
            span(60),
            async || {
                server.set_read_only(true).await;
                monotonic()
            },
            async || server.set_read_only(false).await,
        )
        .await;
    watched.universe.database.disconnect().await;
    watched
        .outage(
            "cut off",
            span(60),
            async || {
                server.cut(false).await;
                monotonic()
            },
            async || server.cut(true).await,
        )
        .await;

    // Cut and taken back in the same moment: nobody need notice, but everything goes on.
    server.cut(true).await;
    let accepted = watched.accepts(monotonic(), RECOVERED).await;
    println!("store_away postgres all connections cut once: 200 after {accepted:.2?}");
    assert!(accepted <= RECOVERED, "{accepted:?}");
    assert_eq!(watched.restarts().await, 0);
    eventually("the reader is connected again", RECOVERED, async || watched.universe.database.try_number("select 1 as n").await).await;
    watched.end().await;
}

#[test]
fn a_server_that_freezes_while_nothing_happens_is_noticed() {
    run_on_own_server(idle_outages);
}

/// Without load only the journal's own look can notice.
async fn idle_outages(database: Database, server: OwnServer) {
    let mut universe = Universe::started(database, &Setup { entities: 100, ..Setup::default() }).await;
    let probe = super::Probe::start(&universe);
    for what in ["frozen", "read-only"] {
        match what {
            "frozen" => server.freeze(),
            _ => server.set_read_only(true).await,
        }
        let noticed = probe.wait(503, monotonic(), super::NOTICED).await;
        match what {
            "frozen" => server.thaw(),
            _ => server.set_read_only(false).await,
        }
        let ready = probe.wait(200, monotonic(), RECOVERED).await;
        println!("store_away postgres {what} without load: /readyz 503 after {noticed:.2?}, 200 after {ready:.2?}");
        assert!(noticed <= super::NOTICED && ready <= RECOVERED, "{what}: {noticed:?}, {ready:?}");
    }
    assert_eq!(universe.stop().await, Some(0));
}
