//! Fills the organisation: sizes in the proportions of an agency, relations that hold together.

use super::catalog::Collection as C;
use super::dice::Dice;
use super::world::{Record, World};

const DAY_US: i64 = 86_400_000_000;

/// How many of `total` records each collection gets: thousandths of the total, and the least.
const SHARES: [(C, u64, u64); 22] = [
    (C::Workflows, 0, 3),
    (C::WorkflowStatuses, 0, 15),
    (C::CustomFields, 0, 10),
    (C::CustomFieldOptions, 0, 30),
    (C::Companies, 5, 6),
    (C::People, 5, 8),
    (C::Projects, 10, 8),
    (C::Memberships, 20, 10),
    (C::Boards, 10, 8),
    (C::TaskLists, 30, 16),
    (C::Tasks, 430, 40),
    (C::TaskDependencies, 10, 4),
    (C::Todos, 30, 8),
    (C::Comments, 80, 12),
    (C::Pages, 10, 5),
    (C::Deals, 15, 8),
    (C::Services, 30, 10),
    (C::Bookings, 40, 10),
    (C::TimeEntries, 230, 20),
    (C::Expenses, 20, 6),
    (C::Invoices, 15, 6),
    (C::Payments, 10, 4),
];

/// Makes about `entities` records, the youngest two days before `now_us`.
pub(super) fn seed(world: &mut World, entities: u64, now_us: i64) {
    let mut dice = Dice::new(world.seed);
    for (collection, share, least) in SHARES {
        for _ in 0..(entities * share / 1000).max(least) {
            let record = new_record(world, collection, &mut dice, now_us);
            let id = world.next_id(collection);
            world.put(collection, id, record, now_us);
        }
    }
}

fn new_record(world: &World, collection: C, dice: &mut Dice, now_us: i64) -> Record {
    let mut record = draft(world, collection, dice, now_us);
    let age = 2 * DAY_US + i64::try_from(dice.below(700 * 86_400_000)).unwrap_or(0) * 1000;
    record.created_us = now_us - age + i64::try_from(dice.below(1000)).unwrap_or(0);
    let since = dice.below(u64::try_from(age - DAY_US).unwrap_or(1));
    record.updated_us = record.created_us + i64::try_from(since).unwrap_or(0);
    record.activity_us = record.updated_us;
    let ended_share = match collection {
        C::Tasks => 0.4,
        C::Projects | C::People => 0.1,
        C::Companies | C::Boards | C::TaskLists => 0.05,
        _ => 0.0,
    };
    if dice.happens(ended_share) {
        record.ended_us = record.updated_us;
    }
    record.special = match collection {
        C::Projects => dice.happens(0.03),
        C::Deals => dice.happens(0.6),
        _ => false,
    };
    record
}

/// A record that is created at `now_us`, with relations to what exists.
pub(super) fn draft(world: &World, collection: C, dice: &mut Dice, now_us: i64) -> Record {
    let mut any = |target: C| world.pick(target, dice.throw()).unwrap_or(0);
    let to: Vec<u32> = match collection {
        // A task's project is that of its task list, a task list's that of its board.
        C::TaskLists => {
            let board = any(C::Boards);
            vec![parent(world, C::Boards, board), board]
        }
        C::Tasks => {
            let list = any(C::TaskLists);
            vec![parent(world, C::TaskLists, list), list, any(C::People), any(C::WorkflowStatuses), any(C::People)]
        }
        C::Invoices => {
            let deal = any(C::Deals);
            vec![parent(world, C::Deals, deal), deal]
        }
        _ => collection.spec().relations.iter().map(|relation| any(relation.target)).collect(),
    };
    let mut record =
        Record { created_us: now_us, updated_us: now_us, activity_us: now_us, to: to.into(), special: false, ..Record::default() };
    let (optional, share) = match collection {
        C::Tasks => (2, 0.3),
        C::Todos | C::Deals => (1, 0.3),
        C::TimeEntries => (2, 0.2),
        _ => (0, 0.0),
    };
    if dice.happens(share) {
        record.to[optional] = 0;
    }
    record
}

/// The first relation of a record: the project or company that owns it.
fn parent(world: &World, collection: C, id: u32) -> u32 {
    world.get(collection, id).and_then(|record| record.to.first().copied()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relations_hold_together_and_the_seed_repeats() {
        let mut world = World::new(3);
        seed(&mut world, 2_000, 1_790_000_000_000_000);
        let mut again = World::new(3);
        seed(&mut again, 2_000, 1_790_000_000_000_000);
        let mut total = 0;
        for collection in C::records() {
            let (one, other) = (world.view(collection, None), again.view(collection, None));
            for ((id, record), (_, twin)) in one.after(0).zip(other.after(0)) {
                total += 1;
                assert_eq!(record.to, twin.to);
                assert!(record.updated_us >= record.created_us && record.updated_us < 1_790_000_000_000_000);
                for (relation, to) in collection.spec().relations.iter().zip(&record.to) {
                    assert!(*to == 0 || world.get(relation.target, *to).is_some(), "{} {id} {}", collection.spec().name, relation.name);
                }
            }
        }
        assert!((1_950..2_200).contains(&total), "{total}");
        let view = world.view(C::Tasks, None);
        for (_, task) in view.after(0) {
            assert_eq!(task.to[0], parent(&world, C::TaskLists, task.to[1]));
        }
    }
}
