//! From configuration to sources.

use std::sync::Arc;
use std::time::Duration;

use crate::actors::source::{Audit, Brake, ConnectorDebug, Process, Settings, Source, Watch};
use crate::clock::Daily;
use crate::config::{self, Config, Connector as Configured, Secrets};
use crate::model::SourceName;
use crate::quota::{BreakerOptions, Limits};
use crate::upstream::{self, ByteBudget, Credentials, Upstream};

mod akeneo;
mod productive;
mod reso;

/// Sources sweep within this span behind their time of day: enough that their first pages do not come at once.
const SPREAD: Duration = Duration::from_secs(15 * 60);
/// Time for connecting to an upstream.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An actor that got no permit for this long looks at its rows again.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the kinds differ in.
struct Kind {
    connector: Arc<dyn ConnectorDebug>,
    root: url::Url,
    /// Further roots that may be asked.
    also: Vec<url::Url>,
    credentials: Credentials,
    scope: String,
    limits: Limits,
    feeds: bool,
    feed_poll: Duration,
    manages_hooks: bool,
    secrets: Vec<(Option<&'static str>, Secrets)>,
}

/// Builds a source; it has no owner and no actors yet.
///
/// # Errors
/// Says what in its configuration cannot work.
pub fn source_of(config: &Config, name: &str, source: &config::Source, budget: ByteBudget, process: Process) -> Result<Source, String> {
    let name = SourceName::new(name).map_err(|error| format!("the name {error}"))?;
    let kind = match &source.connector {
        Configured::Productive(productive) => productive::kind(config, source, productive)?,
        Configured::Akeneo(settings, resources) => akeneo::kind(&name, config, source, settings, resources)?,
        Configured::Reso(settings, resources) => reso::kind(config, source, settings, resources)?,
    };
    let upstream = upstream_of(config, kind.root, kind.also, budget, kind.credentials)?;
    let common = &source.common;
    let settings = Settings {
        linger: common.linger,
        passes: common.passes,
        sweep_at: common.sweep_at.as_ref().and_then(|at| Daily::parse(at, &common.sweep_zone)).map(|daily| daily.later(turn(&name))),
        feeds: kind.feeds,
        feed_poll: kind.feed_poll,
        backlog_max: config.limits.backlog,
        body_max: config.limits.hook_body.map(|size| size.0),
        public_url: common.public_url.as_ref().map(ToString::to_string),
        manages_hooks: kind.manages_hooks,
        may_manage: common.manage,
        watch: watch(&common.watch),
        secrets: kind.secrets,
        brake: Brake { share: common.brake.share, rows: common.brake.rows, cap: common.brake.cap },
        breaker: BreakerOptions {
            failures: common.breaker.failures,
            open_for: common.breaker.open_for,
            open_max: common.breaker.open_max.max(common.breaker.open_for),
        },
        patience: PATIENCE,
        refresh_share: common.refresh_share,
        audit: Audit { share: common.audit.share, every: common.audit.every },
    };
    Ok(Source::new(name, kind.connector, upstream, kind.scope, kind.limits, process, settings))
}

fn watch(configured: &config::Watch) -> Watch {
    let config::Watch { look, mend, probe, late, missed } = *configured;
    Watch { look, mend, probe, late, missed }
}

/// How much later than at its time of day a source sweeps: always the same for a name, and another one for most others.
fn turn(name: &SourceName) -> Duration {
    // FNV-1a; a hash of the standard library may differ from version to version.
    let hash = name.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    Duration::from_secs(hash % SPREAD.as_secs())
}

fn upstream_of(config: &Config, root: url::Url, also: Vec<url::Url>, budget: ByteBudget, by: Credentials) -> Result<Upstream, String> {
    let options = upstream::Options {
        root,
        also,
        response_max: config.limits.upstream_response.0,
        responses_in_flight: budget,
        connect_timeout: CONNECT_TIMEOUT.min(config.limits.upstream_timeout),
        timeout: config.limits.upstream_timeout,
    };
    Upstream::new(options, by)
}

/// Asks an upstream what its resources look like: two requests at most, outside the limits that a running daemon keeps.
///
/// # Errors
/// Says why there is no answer.
pub async fn description(config: &Config, source: &config::Source) -> Result<String, String> {
    let Configured::Reso(settings, _) = &source.connector else {
        return Err(format!("a source of kind \"{}\" has no description to save", source.connector.kind()));
    };
    let kind = reso::bare(config, source, settings)?;
    let budget = ByteBudget::new(config.limits.responses_in_flight.0);
    let upstream = upstream_of(config, kind.root, kind.also, budget, kind.credentials)?;
    let request = kind.connector.describe().ok_or("it has no description")?;
    let texts = kind.connector.login_needs().iter().map(|which| upstream.credential(*which)).collect::<Result<Vec<_>, _>>();
    let texts = texts.map_err(|error| error.to_string())?;
    let session = match kind.connector.login(&texts, None) {
        Some(login) => {
            let answer = upstream.log_in(&login).await.map_err(|error| error.to_string())?;
            Some(kind.connector.read_login(&answer).map_err(|error| error.to_string())?)
        }
        None => None,
    };
    let answer = upstream.send(&*kind.connector, session.as_ref(), &request).await.map_err(|error| error.to_string())?;
    if answer.status != 200 {
        return Err(format!("the server answered with status {}", answer.status));
    }
    let text = String::from_utf8(answer.body.to_vec()).map_err(|_| "the answer is no text".to_owned())?;
    crate::connectors::reso::described(&text).map_err(|error| format!("the answer {error}"))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source of which nothing is set but what has to be.
    fn kind(text: &str) -> (Kind, Watch) {
        let config = Config::parse("instep.toml", text).unwrap_or_else(|error| panic!("{error}"));
        let (name, source) = config.sources.iter().next().expect("a source");
        let kind = match &source.connector {
            Configured::Productive(settings) => productive::kind(&config, source, settings),
            Configured::Akeneo(settings, resources) => {
                akeneo::kind(&SourceName::new(name).expect("a name"), &config, source, settings, resources)
            }
            Configured::Reso(settings, resources) => reso::kind(&config, source, settings, resources),
        };
        (kind.unwrap_or_else(|error| panic!("{error}")), watch(&source.common.watch))
    }

    #[test]
    fn what_is_lost_within_a_minute_is_noticed_within_five_by_the_defaults() {
        let secret = "{ env = \"A\" }";
        let reso = format!("[sources.mls]\nkind = \"reso\"\nurl = \"https://mls.example/\"\nauth = {{ token = {secret} }}\npush = {{}}\n");
        let texts = [
            format!("[sources.pmp]\nkind = \"productive\"\norganization = 1\ntoken = {secret}\n"),
            format!(
                "[sources.pim]\nkind = \"akeneo\"\nurl = \"https://pim.example/\"\nauth = {{ token = {secret} }}\n\
                 event_platform = {{ secrets = [{secret}] }}\n"
            ),
            reso.clone(),
            format!("{reso}events = {{ read = \"no\" }}\n"),
        ];
        for text in texts {
            let (kind, watch) = kind(&text);
            let polls = kind.connector.resources().iter().map(|spec| spec.poll).max().expect("resources");
            let learned = if kind.feeds { kind.feed_poll } else { polls };
            let minute = Duration::from_secs(60);
            let [look, probe, silence] = watch.noticed_within(learned);
            // Enough of it are lost by the end of the minute; a look and a probe need no change.
            assert!(look < minute * 5 && probe < minute * 5 && minute + silence < minute * 5, "{look:?}, {probe:?}, {silence:?}: {text}");
        }
    }
}
