//! A source with sessions and doors of its own, for tests.

use std::sync::Arc;
use std::time::Duration;

use super::home::Identity;
use super::journal::StoreHealth;
use super::source::{Audit, Brake, ConnectorDebug, Process, Settings, Source, Watch};
use crate::clock::Clock;
use crate::connectors::Credential;
use crate::connectors::akeneo::{Akeneo, Auth, Options, ProductKey, ResourceOptions};
use crate::quota::{BreakerOptions, Concurrency, Expected, Limit, Limits, Shape, Unit};
use crate::report::Reporter;
use crate::store::Store;
use crate::store::testing::source as name;
use crate::upstream::{ByteBudget, Credentials, Options as Bounds, Upstream};

/// Longest wait of a test for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A PIM at `url` with its channels and products; `requests` a minute, permits waited for as long as `patience`.
pub(crate) fn source(store: &Store, url: &url::Url, requests: u64, patience: Duration) -> Source {
    let day = Duration::from_secs(86_400);
    let connector = Akeneo::new(Options {
        url: url.clone(),
        auth: Auth::Password { client_id: "3_x".to_owned(), username: "shop".to_owned() },
        zone_seconds: 0,
        product_key: ProductKey::Uuid,
        resources: ["channels", "products"].map(|name| (name.to_owned(), ResourceOptions::default())).to_vec(),
        events_api: true,
        event_platform: true,
        platform: None,
        notifications: true,
        ignore_authors: vec!["shop".to_owned()],
        subscriptions: Vec::new(),
        exclude: Vec::new(),
        read_lag: Duration::ZERO,
        list_lag: Duration::ZERO,
        keep_deleted: day,
        tombstones: 90 * day,
    });
    let credentials = |which| match which {
        Credential::Client => Ok("client-secret".to_owned()),
        Credential::Password => Ok("hunter2".to_owned()),
        other => Err(format!("{other:?} is not asked for")),
    };
    source_of(store, url, Arc::new(connector.expect("a connector")), Arc::new(credentials), (requests, patience))
}

/// A source at `url` that a connector knows; `requests` a minute, permits waited for as long as `patience`.
pub(crate) fn source_of(
    store: &Store,
    url: &url::Url,
    connector: Arc<dyn ConnectorDebug>,
    credentials: Credentials,
    (requests, patience): (u64, Duration),
) -> Source {
    let bounds = Bounds {
        root: url.clone(),
        also: Vec::new(),
        response_max: 1 << 20,
        responses_in_flight: ByteBudget::new(8 << 20),
        connect_timeout: PATIENCE,
        timeout: PATIENCE,
    };
    let settings = Settings {
        linger: Duration::ZERO,
        passes: false,
        sweep_at: None,
        feeds: false,
        feed_poll: PATIENCE,
        backlog_max: 1_000,
        body_max: None,
        public_url: None,
        manages_hooks: false,
        may_manage: true,
        watch: Watch::default(),
        secrets: Vec::new(),
        brake: Brake::default(),
        breaker: BreakerOptions::default(),
        patience,
        refresh_share: 0.2,
        audit: Audit::default(),
    };
    let minute = Shape::Window(Duration::from_secs(60));
    let limit = Limit { id: "scope/requests".to_owned(), amount: requests, shape: minute, unit: Unit::Requests, share: 1.0 };
    let limits = Limits::new(vec![limit], Concurrency { cap: 4, floor: 0 }, [Expected::default(); 5]).expect("valid limits");
    let process = Process {
        store: store.clone(),
        health: StoreHealth::default(),
        clock: Clock::system(),
        reporter: Reporter::new(),
        state: std::env::temp_dir(),
        identity: Identity::default(),
    };
    let upstream = Upstream::new(bounds, credentials).expect("a client");
    Source::new(name(), connector, upstream, "scope".to_owned(), limits, process, settings)
}
