//! Whether the upstream still shows the resource at all.
//!
//! A not-found may be a record that is gone, or a permission that is gone. A record known alive tells: where it is not found either,
//! the view of the resource is lost. From then on nothing but that view is looked for, later each time, and nothing is removed; once
//! a record is shown again everything that waited is read. What another resource shows says nothing about this one.

use std::time::Duration;

use super::{DueMark, Sync};
use crate::actors::ask::AskError;
use crate::connectors::{ReadError, ResourceSpec};
use crate::model::Key;
use crate::quota::Class;
use crate::store::{Error, Fence};
use crate::supervision::Context;

/// Other records that are tried where the one that was last seen alive is not found.
const OTHERS: u64 = 2;

/// What may be read now.
pub(super) enum View {
    /// Everything.
    Shown,
    /// Nothing: the view is lost, and looked for again after this.
    Rests(Duration),
    /// It was looked for in vain just now, and is again after this.
    Glimpse(Duration),
}

/// What a control says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// A record of the resource is shown.
    Shown,
    /// Records known alive are not found.
    Lost,
    /// No record of the resource is left to ask for; another resource is shown.
    Elsewhere,
    /// No record is left to ask for.
    Nothing,
    /// There was no answer that could tell.
    Unclear,
}

impl Sync {
    /// Whether marks may be read now. Those of `alone` that are held were so by a view that was lost, perhaps before a restart.
    pub(super) async fn view(&mut self, cx: &Context, fence: &Fence, spec: &ResourceSpec, alone: &[DueMark]) -> Result<View, Error> {
        match self.source.lost_view(&self.resource) {
            Some(lost) => match lost.next.saturating_sub(self.source.clock.monotonic()) {
                Duration::ZERO => self.look_round(cx, fence, spec).await,
                left => Ok(View::Rests(left)),
            },
            None if alone.iter().any(|due| due.held) => self.look_round(cx, fence, spec).await,
            None => Ok(View::Shown),
        }
    }

    /// Looks whether anything is shown, and notes it.
    pub(super) async fn look_round(&self, cx: &Context, fence: &Fence, spec: &ResourceSpec) -> Result<View, Error> {
        Ok(match self.control(cx, fence, spec, &[]).await? {
            Control::Lost => View::Glimpse(self.lose()),
            // Not lost for want of an answer; but what was lost stays so until something is shown.
            Control::Unclear if self.source.lost_view(&self.resource).is_some() => View::Glimpse(self.lose()),
            Control::Unclear => View::Shown,
            Control::Shown | Control::Elsewhere | Control::Nothing => {
                self.source.see(&self.resource);
                View::Shown
            }
        })
    }

    /// The view is lost, or still is; how long it rests.
    pub(super) fn lose(&self) -> Duration {
        self.source.lose(&self.resource, |looks| self.view_backoff.delay(looks, rand::random()))
    }

    /// Whether the upstream shows records that we know alive, other than these.
    pub(super) async fn control(&self, cx: &Context, fence: &Fence, spec: &ResourceSpec, except: &[Key]) -> Result<Control, Error> {
        let own = self.shows(cx, fence, spec, except).await?;
        if own != Control::Nothing {
            return Ok(own);
        }
        for other in self.source.connector.resources().iter().filter(|other| other.name != self.resource) {
            match self.shows(cx, fence, other, &[]).await? {
                Control::Nothing => {}
                Control::Shown => return Ok(Control::Elsewhere),
                control => return Ok(control),
            }
        }
        Ok(Control::Nothing)
    }

    /// What the records of one resource say: the one that was seen alive last, then a few others.
    async fn shows(&self, cx: &Context, fence: &Fence, spec: &ResourceSpec, except: &[Key]) -> Result<Control, Error> {
        let mut asked = Vec::new();
        for n in [0, OTHERS] {
            for key in self.source.store.control_keys(&self.source.name, (&spec.name, spec.parent.as_ref()), except, n).await? {
                if asked.contains(&key) {
                    continue;
                }
                match self.source.ask_key(cx, fence, Class::Live, spec, &key).await {
                    Ok(_) => return Ok(Control::Shown),
                    Err((AskError::Read(ReadError::NotFound), _)) => asked.push(key),
                    Err(_) => return Ok(Control::Unclear),
                }
            }
        }
        Ok(if asked.is_empty() { Control::Nothing } else { Control::Lost })
    }
}
