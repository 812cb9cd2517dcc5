//! Events in every order in which they can come: whatever the order, the replica ends as the upstream is.
//!
//! A story has three steps upstream, each with an event that comes at any time after its own step: fifteen orders of steps and
//! events. Every order has a record of its own, so that one daemon goes through all of them at once, place by place. Each story is
//! told twice: once everything that came is worked in before the next place, once without a pause. There are no passes and the fake
//! upstream sends nothing: the events are made and signed here, with the record as it was right after their step.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{Database, Pim, Setup, Universe, on_both, pim};

on_both!(every_order_of_a_pims_events_ends_right, every_order_of_productives_events_ends_right);

const SOON: Duration = Duration::from_secs(60);
/// Lives that come to their next place at the same moment.
const AT_ONCE: usize = 25;

/// What happens to a record upstream.
#[derive(Clone, Copy, Debug)]
enum Step {
    Update,
    /// Another change with the stamp of the one before, as two within a second have it.
    Twin,
    Delete,
    /// It comes back with what it had.
    Restore,
}

use Step::{Delete, Restore, Twin, Update};

const STORIES: [(&str, [Step; 3]); 5] = [
    ("a pair with one stamp, and a third", [Update, Twin, Twin]),
    ("late updates after a delete", [Update, Twin, Delete]),
    ("an old delete after a newer row", [Delete, Restore, Update]),
    ("back with what it had", [Update, Delete, Restore]),
    ("gone, back and gone", [Delete, Restore, Delete]),
];

/// One place of an order.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// This step happens.
    Step(usize),
    /// The event of this step arrives.
    Event(usize),
}

/// Every order of `n` steps, which keep theirs, and their events, each after its step.
fn orders(n: usize) -> Vec<Vec<Place>> {
    let mut whole = Vec::new();
    let mut begun = vec![(Vec::new(), 0, Vec::new())];
    while let Some((order, n_steps, open)) = begun.pop() {
        if order.len() == 2 * n {
            whole.push(order);
            continue;
        }
        let with = |place: Place| order.iter().copied().chain([place]).collect::<Vec<_>>();
        if n_steps < n {
            begun.push((with(Place::Step(n_steps)), n_steps + 1, open.iter().copied().chain([n_steps]).collect()));
        }
        for event in &open {
            begun.push((with(Place::Event(*event)), n_steps, open.iter().copied().filter(|other| other != event).collect::<Vec<usize>>()));
        }
    }
    whole
}

/// A way in which an upstream tells of changes.
#[derive(Clone, Copy, Debug)]
enum Way {
    EventsApi,
    EventPlatform,
    Productive,
}

/// A record that lives through a story in one order.
struct Life {
    way: Way,
    key: String,
    steps: [Step; 3],
    order: Vec<Place>,
    /// Where its events go and what is in them, as far as their steps have happened.
    told: Vec<(String, String)>,
}

/// One life a story, order and way, each with a key of its own.
fn lives(ways: &[Way], keys: Vec<String>) -> Vec<Life> {
    let mut keys = keys.into_iter();
    let mut lives = Vec::new();
    for (_, steps) in STORIES {
        for order in orders(steps.len()) {
            for way in ways {
                let key = keys.next().expect("there are enough records");
                lives.push(Life { way: *way, key, steps, order: order.clone(), told: Vec::new() });
            }
        }
    }
    lives
}

impl Life {
    async fn come_to(&mut self, universe: &Universe, place: usize) {
        match self.order[place] {
            Place::Step(number) => {
                let told = self.happens(universe, number).await;
                self.told.push(told);
            }
            Place::Event(number) => {
                let (route, body) = &self.told[number];
                match self.way {
                    Way::EventsApi => pim::arrives(async || pim::send_events(universe, body).await).await,
                    Way::EventPlatform => pim::arrives(async || pim::send_platform(universe, body).await).await,
                    Way::Productive => universe.deliver_surely(route, body).await,
                }
            }
        }
    }

    /// Makes the step upstream; the route and body that tell of it.
    async fn happens(&self, universe: &Universe, number: usize) -> (String, String) {
        let step = self.steps[number];
        let verb = match step {
            Update | Twin => "update",
            Delete => "delete",
            Restore => "restore",
        };
        // Without a trace the stamp stays.
        let (note, announce) = (format!("step {number} of {}", self.key), !matches!(step, Twin));
        if matches!(self.way, Way::Productive) {
            let mut asked = json!({ "collection": "tasks", "id": self.key, "announce": announce });
            if verb == "update" {
                asked["attributes"] = json!({ "title": note });
            }
            universe.sandbox.control(verb, asked).await;
            return self.of_productive(universe, step).await;
        }
        let further = if verb == "update" { json!({ "fields": { "groups": [note] }, "announce": announce }) } else { json!({}) };
        pim::change(universe, verb, "products", Some(&self.key), further).await;
        self.of_pim(universe, step).await
    }

    async fn of_productive(&self, universe: &Universe, step: Step) -> (String, String) {
        let (route, verb) = match step {
            Update | Twin => ("task-updated", "update_task"),
            Delete => ("task-deleted", "delete_task"),
            Restore => ("task-created", "create_task"),
        };
        let gone = || json!({ "data": { "id": self.key, "type": "tasks", "attributes": {} } });
        let object = universe.sandbox.observe(&format!("/api/v2/tasks/{}", self.key)).await.unwrap_or_else(gone);
        let number: u64 = self.key.parse().expect("ids are numbers");
        (route.to_owned(), json!({ "event": verb, "item_type": "task", "item_id": number, "object": object }).to_string())
    }

    async fn of_pim(&self, universe: &Universe, step: Step) -> (String, String) {
        let (old, new) = match step {
            Update | Twin => ("product.updated", "product.updated"),
            Delete => ("product.removed", "product.deleted"),
            Restore => ("product.created", "product.created"),
        };
        let thin = json!({ "uuid": self.key });
        let body = match self.way {
            Way::EventsApi => pim::event(old, &pim::product(&universe.sandbox, &self.key).await.unwrap_or(thin)),
            _ => pim::cloud_event(new, &json!({ "product": thin })),
        };
        (String::new(), body)
    }
}

/// Goes through all lives at once, place by place.
async fn live(universe: &Universe, lives: &mut [Life], settles: bool) {
    for place in 0..6 {
        for some in lives.chunks_mut(AT_ONCE) {
            join_all(some.iter_mut().map(|life| life.come_to(universe, place))).await;
        }
        if settles {
            universe.idle(SOON).await;
        }
    }
    universe.idle(SOON).await;
}

fn told(universe: &Universe, what: &str, n_lives: usize) {
    let n = orders(3).len();
    println!(
        "orders {:?}: {what}: {} stories in {n} orders each, {n_lives} with and without pauses: all end as upstream",
        universe.database.engine,
        STORIES.len()
    );
}

async fn every_order_of_a_pims_events_ends_right(database: Database) {
    let pim = Pim { entities: 420, resources: vec![("products", "")], ..Pim::default() };
    let universe = pim.started(database).await;
    let all = pim::truth(&universe.sandbox, "products").await;
    // What is deleted leaves the associations of others without a word; those are another story.
    let linked: Vec<&str> = all
        .values()
        .flat_map(|product| product.pointer("/associations/X_SELL/products").and_then(Value::as_array))
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut keys: Vec<String> = all.keys().filter(|key| !linked.contains(&key.as_str())).cloned().collect();
    let ways = [Way::EventsApi, Way::EventPlatform];
    let n_lives = STORIES.len() * orders(3).len() * ways.len();
    let rest = keys.split_off(n_lives);
    live(&universe, &mut lives(&ways, keys), true).await;
    live(&universe, &mut lives(&ways, rest), false).await;
    pim::in_step(&universe, &["products"], SOON).await;
    told(&universe, "Events API and Event Platform", 2 * n_lives);
}

async fn every_order_of_productives_events_ends_right(database: Database) {
    let universe = Universe::started(database, &Setup::default()).await;
    let mut keys = universe.sandbox.keys("tasks").await;
    let n_lives = STORIES.len() * orders(3).len();
    let rest = keys.split_off(n_lives);
    live(&universe, &mut lives(&[Way::Productive], keys), true).await;
    live(&universe, &mut lives(&[Way::Productive], rest), false).await;
    universe.in_step(SOON).await;
    told(&universe, "Productive", 2 * n_lives);
}

#[test]
fn there_are_as_many_orders_as_can_be() {
    // Each event has one place more to go than the one before: 1 * 3 * 5.
    let orders = orders(3);
    assert_eq!(orders.len(), 15);
    let mut told: Vec<String> = orders.iter().map(|order| format!("{order:?}")).collect();
    told.sort();
    told.dedup();
    assert_eq!(told.len(), 15, "no order stands twice");
}
