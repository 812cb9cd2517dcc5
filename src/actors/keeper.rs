//! `keeper`: the webhook registrations upstream.
//!
//! It watches them (some upstreams switch a registration off after failed deliveries, without a word) and says how changes reach
//! us. Making and removing them is done when an operator asks (`instep hooks`), with the managing credential, and always by
//! looking first: a create that was cut off is found by its address, and surplus of ours is removed. What an operator has had made and
//! what is then dead or missing is made again.
//!
//! It also looks whether webhooks are lost: by registrations (`watch`), by what feeds and passes show (`silence`), and by the public address
//! (`super::probe`). Each opens a gap, which passes repair.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::ask::AskError;
use super::probe::Prober;
use super::source::{LiveMode, Source};
use crate::connectors::{HookSecret, Making, ReadError, Registered, RegistrationError, Request, Response};
use crate::quota::Class;
use crate::report::{LiveMode as LiveModeGauge, RegistrationChanged, RouteSilent};
use crate::store::{self, Fence};
use crate::supervision::{Bug, ChildSpec, Context, Meltdown, Rest, Work, worker};

mod silence;
mod watch;

use silence::Silence;
use watch::Ill;

/// Registrations that could not be looked at are looked at again after this, or sooner where they always are.
const RETRY: Duration = Duration::from_secs(60);
/// Between two looks at a route that its upstream has ended.
const TELL_EVERY: Duration = Duration::from_secs(24 * 3600);
/// Pages of registrations; an upstream that lists more is not listing ours.
const PAGES_MAX: usize = 50;

/// The child spec.
pub fn spec(source: Arc<Source>) -> ChildSpec {
    let waker = source.keeper.clone();
    worker("keeper", Meltdown::Park, Duration::from_secs(3), waker, move || Keeper {
        silence: Silence::new(&source),
        source: Arc::clone(&source),
        looks_at: Duration::ZERO,
        mends_at: None,
        told_at: None,
        prober: Prober::default(),
    })
}

struct Keeper {
    source: Arc<Source>,
    /// When registrations are looked at again, in monotonic time.
    looks_at: Duration,
    /// When registrations that the upstream has switched off may be put right again, in monotonic time.
    mends_at: Option<Duration>,
    /// When it was last looked whether an ended route is still heard.
    told_at: Option<Duration>,
    prober: Prober,
    silence: Silence,
}

impl Keeper {
    /// Tells once a day of a route that its upstream has ended.
    async fn tell_of_an_ended_route(&mut self) -> Result<(), store::Error> {
        let source = &self.source;
        let (Some(retiring), now) = (source.connector.retiring(), source.clock.monotonic()) else { return Ok(()) };
        // Asked for only then: the deliveries of a route have no index of their own.
        if source.clock.now() < retiring.from || self.told_at.is_some_and(|at| now.saturating_sub(at) < TELL_EVERY) {
            return Ok(());
        }
        let last = source.store.last_delivery(&source.name, retiring.route).await?;
        self.told_at = Some(now);
        if retiring.is_silent(source.clock.now(), last) {
            source.reporter.emit(RouteSilent { source: source.name.to_string(), route: retiring.route.to_owned() });
        }
        Ok(())
    }

    /// Puts right what the upstream has switched off, and what was there and is missing: not at the first look of a life, and not more than
    /// once in `watch.mend`, since an upstream may take away for good what comes back too often. An operator may at any time, by
    /// `instep hooks create`.
    async fn mend(&mut self, cx: &Context, fence: &Fence, standing: &[Registered], ill: &Ill) -> Result<(), HooksError> {
        let (source, now, watch) = (Arc::clone(&self.source), self.source.clock.monotonic(), self.source.settings.watch);
        let mends_at = *self.mends_at.get_or_insert(now + watch.look / 2);
        let is_mendable = |one: &&Registered| !one.healthy && source.connector.mend_registration(one).is_some();
        let mendable: Vec<&Registered> = standing.iter().filter(is_mendable).collect();
        if mendable.is_empty() && ill.routes.is_empty() || now < mends_at || source.may_manage().is_err() {
            return Ok(());
        }
        self.mends_at = Some(now + watch.mend);
        for registered in &mendable {
            tracing::warn!(source = %source.name, route = registered.route.as_deref(), state = %registered.state, "a registration is switched on again");
            source.mend_hook(cx, fence, registered).await?;
        }
        let is_mended = |route: &&String| mendable.iter().any(|one| one.route.as_ref() == Some(*route));
        let lost: BTreeSet<String> = ill.routes.iter().filter(|route| !is_mended(route)).cloned().collect();
        if !lost.is_empty() {
            tracing::warn!(source = %source.name, routes = lost.len(), "registrations that are dead or missing are made again");
            source.make_hooks(cx, fence, Some(&lost)).await?;
        }
        // What was put right is to be seen soon, for until then the gap goes on.
        self.looks_at = Duration::ZERO;
        Ok(())
    }

    /// Looks at the registrations where that is due; how long until it is.
    async fn look(&mut self, cx: &Context) -> Duration {
        let (source, now) = (Arc::clone(&self.source), self.source.clock.monotonic());
        let every = source.settings.watch.look;
        if source.settings.public_url.is_none() || !source.settings.manages_hooks {
            source.note_unwatched().await;
            return every;
        }
        if self.looks_at > now {
            return self.looks_at - now;
        }
        self.looks_at = now + every;
        let Some(fence) = source.fence(cx).await else { return every };
        match source.watch_hooks(cx, &fence).await {
            Ok(registered) => {
                source.note_hooks(&registered);
                if let Err(error) = self.keep(cx, &fence, &registered).await {
                    tracing::warn!(source = %source.name, %error, "registrations could not be put right");
                }
            }
            Err(HooksError::Registration(RegistrationError::NotInPlan)) => source.note_hooks(&[]),
            Err(error) => {
                tracing::warn!(source = %source.name, %error, "webhook registrations could not be looked at");
                self.looks_at = now + RETRY.min(every);
            }
        }
        self.looks_at.saturating_sub(source.clock.monotonic())
    }

    async fn keep(&mut self, cx: &Context, fence: &Fence, standing: &[Registered]) -> Result<(), HooksError> {
        let ill = self.source.compare_hooks(fence, standing).await?;
        self.mend(cx, fence, standing, &ill).await
    }
}

impl Work for Keeper {
    async fn step(&mut self, cx: &Context) -> Result<Rest, Bug> {
        let source = Arc::clone(&self.source);
        if let Err(error) = self.tell_of_an_ended_route().await {
            tracing::debug!(source = %source.name, %error, "the last delivery could not be looked up");
        }
        let mut rest = source.settings.watch.look;
        rest = rest.min(source.resume_pushes(cx).await.unwrap_or(rest));
        rest = rest.min(self.look(cx).await);
        rest = rest.min(self.prober.turn(&source).await.unwrap_or(rest));
        if source.settings.public_url.is_some() && source.suspended().is_none() {
            match self.silence.turn(&source).await {
                Ok(span) => rest = rest.min(span),
                Err(error) => tracing::debug!(source = %source.name, %error, "what webhooks told could not be looked up"),
            }
        }
        Ok(Rest::For(rest))
    }
}

/// Why registrations could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum HooksError {
    /// The configuration does not allow it.
    #[error("{0}")]
    Configuration(&'static str),
    /// The registrations are another's, until somebody says otherwise.
    #[error("managing webhooks is suspended: {0}")]
    Suspended(String),
    /// The upstream said no.
    #[error(transparent)]
    Registration(#[from] RegistrationError),
    /// The upstream did not answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// An invitation cannot be made or revoked.
    #[error("{0}")]
    Invitation(String),
    /// Secrets that the upstream is to be told cannot be read.
    #[error("{0}")]
    Secrets(String),
}

impl Source {
    /// Our registrations as they stand upstream.
    ///
    /// # Errors
    /// [`HooksError`].
    pub async fn list_hooks(&self, cx: &Context, fence: &Fence) -> Result<Vec<Registered>, HooksError> {
        let target = self.targets()?;
        let (mut ours, mut cursor) = (Vec::new(), None::<String>);
        for _ in 0..PAGES_MAX {
            let request = self.connector.list_registrations(cursor.as_deref());
            let response = self.ask_whole(cx, fence, &request).await?;
            let (page, next) = self.connector.read_registrations(&response, &target)?;
            ours.extend(page.into_iter().filter(|registered| registered.route.is_some()));
            if next.is_none() || next == cursor {
                break;
            }
            cursor = next;
        }
        Ok(ours)
    }

    /// As [`Self::list_hooks`]. A create that was cut off left a registration whose token we do not know, so that its deliveries
    /// are refused: its token is kept now.
    async fn watch_hooks(&self, cx: &Context, fence: &Fence) -> Result<Vec<Registered>, HooksError> {
        let standing = self.list_hooks(cx, fence).await?;
        let known = self.store.registrations(&self.name).await?;
        let is_known = |one: &Registered| known.iter().any(|known| known.upstream_id == one.id && known.secret == one.secret);
        for registered in standing.iter().filter(|one| !is_known(one)) {
            self.keep_secret(fence, registered).await?;
        }
        Ok(standing)
    }

    /// Registers what is missing, replaces what is switched off, removes surplus; answers with what then stands.
    ///
    /// # Errors
    /// [`HooksError`]. What was made before stays and is found by the next call.
    pub async fn create_hooks(&self, cx: &Context, fence: &Fence) -> Result<Vec<Registered>, HooksError> {
        self.make_hooks(cx, fence, None).await
    }

    /// As [`Self::create_hooks`], of these routes only.
    async fn make_hooks(&self, cx: &Context, fence: &Fence, only: Option<&BTreeSet<String>>) -> Result<Vec<Registered>, HooksError> {
        self.may_manage()?;
        let standing = self.list_hooks(cx, fence).await?;
        let mut covered = BTreeSet::new();
        let is_meant = |route: &str| only.is_none_or(|only| only.contains(route));
        for registered in standing.iter().filter(|one| is_meant(one.route.as_deref().unwrap_or_default())) {
            let route = registered.route.clone().unwrap_or_default();
            let can_stand = registered.healthy || self.connector.mend_registration(registered).is_some();
            // A second one for the same route would deliver everything twice.
            if !can_stand || !covered.insert(route) {
                self.remove_hook(cx, fence, registered).await?;
            } else {
                self.mend_hook(cx, fence, registered).await?;
                self.keep_secret(fence, registered).await?;
            }
        }
        for registration in self.connector.registrations().into_iter().filter(|one| !is_meant(&one.route)) {
            covered.insert(registration.route);
        }
        self.make_missing(cx, fence, standing, &covered).await?;
        let standing = self.list_hooks(cx, fence).await?;
        self.note_hooks(&standing);
        self.compare_hooks(fence, &standing).await?;
        Ok(standing)
    }

    /// Makes what is not covered, each after what it rests on.
    async fn make_missing(
        &self,
        cx: &Context,
        fence: &Fence,
        mut standing: Vec<Registered>,
        covered: &BTreeSet<String>,
    ) -> Result<(), HooksError> {
        let target = self.targets()?;
        let secrets = self.hook_secrets().await.map_err(HooksError::Secrets)?;
        let instance = self.store.instance_name().await?;
        for mut wanted in self.connector.registrations().into_iter().filter(|wanted| !covered.contains(&wanted.route)) {
            wanted.title = format!("{} {instance}", wanted.title);
            let is_its = |secret: &&HookSecret| secret.route.as_deref() == Some(&wanted.route);
            let secrets: Vec<HookSecret> = secrets.iter().filter(is_its).cloned().collect();
            let making = Making { target: &target(&wanted.route), secrets: &secrets, standing: &standing };
            let request = self.connector.create_registration(&wanted, making);
            let request = request
                .ok_or(HooksError::Configuration("a registration cannot be made: it has no secret, or what it rests on is missing"))?;
            let response = self.ask_whole(cx, fence, &request).await?;
            let (made, _) = self.connector.read_registrations(&response, &target)?;
            for registered in &made {
                self.keep_secret(fence, registered).await?;
            }
            standing.extend(made);
            self.reporter.emit(RegistrationChanged { source: self.name.to_string(), operation: "created".into() });
        }
        Ok(())
    }

    /// Puts a registration right that the upstream has switched off and can switch on again.
    async fn mend_hook(&self, cx: &Context, fence: &Fence, registered: &Registered) -> Result<(), HooksError> {
        let Some(request) = self.connector.mend_registration(registered).filter(|_| !registered.healthy) else { return Ok(()) };
        let response = self.ask_whole(cx, fence, &request).await?;
        if !(200..=299).contains(&response.status) {
            return Err(AskError::Read(ReadError::Refused(response.status)).into());
        }
        self.reporter.emit(RegistrationChanged { source: self.name.to_string(), operation: "resumed".into() });
        Ok(())
    }

    /// Removes every registration of ours; answers how many.
    ///
    /// # Errors
    /// [`HooksError`].
    pub async fn delete_hooks(&self, cx: &Context, fence: &Fence) -> Result<usize, HooksError> {
        let standing = self.list_hooks(cx, fence).await?;
        // In the reverse order: what others rest on goes last.
        for registered in standing.iter().rev() {
            self.remove_hook(cx, fence, registered).await?;
        }
        self.note_hooks(&[]);
        Ok(standing.len())
    }

    /// Whether registrations may be changed now.
    pub(super) fn may_manage(&self) -> Result<(), HooksError> {
        if !self.settings.may_manage {
            return Err(HooksError::Configuration("manage = false: registrations are only watched"));
        }
        self.suspended().map_or(Ok(()), |why| Err(HooksError::Suspended(why)))
    }

    /// An answer as it came: what it says depends on what registrations are expected. Whatever is no question needs the right to manage.
    async fn ask_whole(&self, cx: &Context, fence: &Fence, request: &Request) -> Result<Response, HooksError> {
        if request.method != http::Method::GET {
            self.may_manage()?;
        }
        let answer = self.ask(cx, fence, Class::Refresh, request, |response| Ok(response.clone())).await;
        Ok(answer.map_err(|(error, _)| error)?.what)
    }

    async fn remove_hook(&self, cx: &Context, fence: &Fence, registered: &Registered) -> Result<(), HooksError> {
        let response = self.ask_whole(cx, fence, &self.connector.delete_registration(&registered.id)).await?;
        if !matches!(response.status, 200..=299 | 404 | 410) {
            return Err(AskError::Read(ReadError::Refused(response.status)).into());
        }
        self.store.drop_registration(fence, &registered.id).await?;
        self.reporter.emit(RegistrationChanged { source: self.name.to_string(), operation: "deleted".into() });
        Ok(())
    }

    async fn keep_secret(&self, fence: &Fence, registered: &Registered) -> Result<(), store::Error> {
        let Some(route) = &registered.route else { return Ok(()) };
        self.store.put_registration(fence, route, &registered.id, registered.secret.as_deref(), &registered.state).await?;
        self.registrations.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    fn targets(&self) -> Result<impl Fn(&str) -> String + use<>, HooksError> {
        if !self.settings.manages_hooks {
            return Err(HooksError::Configuration(
                "no credential for managing webhooks is set: registrations can neither be made nor watched",
            ));
        }
        let base = self.target("").ok_or(HooksError::Configuration("public_url is not set: the source is poll-only"))?;
        Ok(move |route: &str| format!("{base}{route}"))
    }

    /// Nothing is managed here. An upstream that has doors of its own nevertheless may deliver, by registrations made by hand.
    async fn note_unwatched(&self) {
        // Should the store be away, nobody can deliver now.
        let is_invited = self.connector.inviting().is_some()
            && self.store.invitations(&self.name).await.is_ok_and(|all| all.iter().any(store::StoredInvitation::is_live));
        let has_secrets = is_invited || self.settings.secrets.iter().any(|(_, secrets)| !secrets.0.is_empty());
        let is_live = self.settings.public_url.is_some() && has_secrets;
        self.reporter.set(LiveModeGauge { source: self.name.to_string() }, f64::from(u8::from(is_live)));
        let mode = if is_live { LiveMode::Unwatched } else { LiveMode::PollOnly };
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = mode;
    }

    fn note_hooks(&self, registered: &[Registered]) {
        let routes = self.connector.hook_routes();
        let carries = |one: &&Registered| one.route.as_deref().is_some_and(|route| routes.contains(&route));
        let registered: Vec<&Registered> = registered.iter().filter(carries).collect();
        let (healthy, unhealthy): (Vec<_>, Vec<_>) = registered.iter().copied().partition(|one| one.healthy);
        let told = |one: &&Registered| format!("{} is {}", one.route.as_deref().unwrap_or("?"), one.state);
        let mode = if registered.is_empty() {
            LiveMode::PollOnly
        } else {
            LiveMode::Webhooks { healthy: healthy.len(), unhealthy: unhealthy.iter().map(told).collect() }
        };
        let live = f64::from(u8::from(!healthy.is_empty()));
        self.reporter.set(LiveModeGauge { source: self.name.to_string() }, live);
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = mode;
    }
}
