//! What the fake organisation consists of: one row per collection, after the tables of the vendor's contract.

/// A collection of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Collection {
    Workflows,
    WorkflowStatuses,
    CustomFields,
    CustomFieldOptions,
    People,
    Companies,
    Projects,
    Memberships,
    Boards,
    TaskLists,
    Tasks,
    TaskDependencies,
    Todos,
    Comments,
    Pages,
    Deals,
    Services,
    Bookings,
    TimeEntries,
    Expenses,
    Invoices,
    Payments,
    Activities,
    DeletedItems,
    TimeEntryVersions,
    Webhooks,
    WebhookLogs,
}

/// A moment of a record by which lists are filtered and sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Id,
    Created,
    Updated,
    Activity,
    /// `archived_at`, `closed_at`, `canceled_at`.
    Ended,
    /// `date`, `started_on`, `paid_on`.
    Day,
}

/// A to-one relation.
#[derive(Debug)]
pub(super) struct Relation {
    pub(super) name: &'static str,
    pub(super) target: Collection,
}

/// One collection.
#[derive(Debug)]
pub(super) struct Spec {
    pub(super) collection: Collection,
    /// Path and JSON:API type.
    pub(super) name: &'static str,
    /// `item_type` of activities, deleted items and deliveries.
    pub(super) item: &'static str,
    /// Ids begin behind this, so that an id of one collection is never an id of another.
    pub(super) first_id: u32,
    pub(super) relations: &'static [Relation],
    pub(super) filters: &'static [(&'static str, Field)],
    pub(super) sorts: &'static [(&'static str, Field)],
    /// The attribute that edits touch first.
    pub(super) text: &'static str,
    pub(super) has_updated_at: bool,
    pub(super) has_archive: bool,
    /// Deleted ones are listed by `/deleted_items`.
    pub(super) has_bin: bool,
    /// The webhook event ids of new, updated, and deleted or archived.
    pub(super) events: Option<[u32; 3]>,
}

/// Event ids of deals that are budgets.
pub(super) const BUDGET_EVENTS: [u32; 3] = [4, 16, 20];

impl Collection {
    pub(super) fn spec(self) -> &'static Spec {
        &CATALOG[self as usize]
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        CATALOG.iter().find(|spec| spec.name == name).map(|spec| spec.collection)
    }

    /// Feeds, webhooks and their logs: kept by the vendor itself, not made by people.
    pub(super) fn is_log(self) -> bool {
        self >= Self::Activities
    }

    /// Every collection of business records.
    pub(super) fn records() -> impl Iterator<Item = Self> {
        CATALOG.iter().map(|spec| spec.collection).filter(|collection| !collection.is_log())
    }
}

use Collection as C;
use Field as F;

const fn to(name: &'static str, target: Collection) -> Relation {
    Relation { name, target }
}

const fn plain(collection: C, name: &'static str, item: &'static str, text: &'static str, relations: &'static [Relation]) -> Spec {
    Spec {
        collection,
        name,
        item,
        first_id: (collection as u32 + 1) * 10_000_000,
        relations,
        filters: &[],
        sorts: &[],
        text,
        has_updated_at: false,
        has_archive: false,
        has_bin: false,
        events: None,
    }
}

const CREATED: (&str, F) = ("created_at", F::Created);
const UPDATED: (&str, F) = ("updated_at", F::Updated);
const ACTIVITY: (&str, F) = ("last_activity_at", F::Activity);
const ID: (&str, F) = ("id", F::Id);

/// Indexed by `Collection as usize`; a test holds it to that.
pub(super) static CATALOG: [Spec; 27] = [
    plain(C::Workflows, "workflows", "workflow", "name", &[]),
    plain(C::WorkflowStatuses, "workflow_statuses", "workflow_status", "name", &[to("workflow", C::Workflows)]),
    plain(C::CustomFields, "custom_fields", "custom_field", "name", &[]),
    plain(C::CustomFieldOptions, "custom_field_options", "custom_field_option", "name", &[to("custom_field", C::CustomFields)]),
    Spec {
        filters: &[CREATED, ACTIVITY, ("archived_at", F::Ended)],
        has_archive: true,
        events: Some([26, 27, 28]),
        ..plain(C::People, "people", "person", "last_name", &[to("company", C::Companies)])
    },
    Spec {
        filters: &[CREATED, ACTIVITY, ("archived_at", F::Ended)],
        sorts: &[CREATED, ACTIVITY],
        has_archive: true,
        events: Some([29, 30, 31]),
        ..plain(C::Companies, "companies", "company", "name", &[])
    },
    Spec {
        filters: &[CREATED],
        sorts: &[CREATED, ACTIVITY],
        has_archive: true,
        has_bin: true,
        events: Some([5, 10, 11]),
        ..plain(
            C::Projects,
            "projects",
            "project",
            "name",
            &[to("company", C::Companies), to("workflow", C::Workflows), to("project_manager", C::People)],
        )
    },
    plain(C::Memberships, "memberships", "membership", "access_type_id", &[to("person", C::People), to("project", C::Projects)]),
    Spec { has_archive: true, ..plain(C::Boards, "boards", "board", "name", &[to("project", C::Projects)]) },
    Spec {
        has_archive: true,
        ..plain(C::TaskLists, "task_lists", "task_list", "name", &[to("project", C::Projects), to("board", C::Boards)])
    },
    Spec {
        filters: &[
            UPDATED,
            CREATED,
            ("after", F::Created),
            ("before", F::Created),
            ("last_activity", F::Activity),
            ("last_activity_after", F::Activity),
            ("last_activity_before", F::Activity),
            ("closed_at", F::Ended),
            ("closed_after", F::Ended),
            ("closed_before", F::Ended),
        ],
        sorts: &[UPDATED, CREATED, ACTIVITY, ID],
        has_updated_at: true,
        has_bin: true,
        events: Some([1, 24, 25]),
        ..plain(
            C::Tasks,
            "tasks",
            "task",
            "title",
            &[
                to("project", C::Projects),
                to("task_list", C::TaskLists),
                to("assignee", C::People),
                to("workflow_status", C::WorkflowStatuses),
                to("creator", C::People),
            ],
        )
    },
    Spec {
        filters: &[UPDATED, CREATED],
        has_updated_at: true,
        ..plain(
            C::TaskDependencies,
            "task_dependencies",
            "task_dependency",
            "type_id",
            &[to("task", C::Tasks), to("dependent_task", C::Tasks)],
        )
    },
    plain(C::Todos, "todos", "todo", "description", &[to("task", C::Tasks), to("assignee", C::People)]),
    Spec { sorts: &[CREATED], ..plain(C::Comments, "comments", "comment", "body", &[to("task", C::Tasks), to("creator", C::People)]) },
    Spec {
        filters: &[CREATED, ACTIVITY],
        sorts: &[CREATED, UPDATED, ACTIVITY, ID],
        has_updated_at: true,
        has_bin: true,
        ..plain(C::Pages, "pages", "page", "title", &[to("project", C::Projects), to("creator", C::People)])
    },
    Spec {
        filters: &[CREATED, ACTIVITY],
        sorts: &[CREATED, ACTIVITY],
        has_bin: true,
        events: Some([3, 12, 13]),
        ..plain(C::Deals, "deals", "deal", "name", &[to("company", C::Companies), to("project", C::Projects), to("responsible", C::People)])
    },
    Spec {
        filters: &[UPDATED],
        has_updated_at: true,
        has_bin: true,
        ..plain(C::Services, "services", "service", "name", &[to("deal", C::Deals)])
    },
    Spec {
        filters: &[UPDATED, CREATED, ACTIVITY, ("after", F::Day), ("before", F::Day), ("canceled_at", F::Ended)],
        sorts: &[ACTIVITY, ("started_on", F::Day)],
        has_updated_at: true,
        has_bin: true,
        events: Some([17, 18, 19]),
        ..plain(C::Bookings, "bookings", "booking", "note", &[to("person", C::People), to("service", C::Services)])
    },
    Spec {
        filters: &[
            UPDATED,
            CREATED,
            ("created_after", F::Created),
            ("created_before", F::Created),
            ACTIVITY,
            ("after", F::Day),
            ("before", F::Day),
        ],
        sorts: &[UPDATED, ("date", F::Day)],
        has_updated_at: true,
        has_bin: true,
        events: Some([7, 8, 9]),
        ..plain(
            C::TimeEntries,
            "time_entries",
            "time_entry",
            "note",
            &[to("person", C::People), to("service", C::Services), to("task", C::Tasks)],
        )
    },
    Spec {
        filters: &[CREATED],
        sorts: &[CREATED, ID],
        has_bin: true,
        events: Some([21, 22, 23]),
        ..plain(C::Expenses, "expenses", "expense", "name", &[to("person", C::People), to("service", C::Services)])
    },
    Spec {
        filters: &[CREATED, ACTIVITY],
        sorts: &[CREATED, ACTIVITY],
        has_bin: true,
        events: Some([2, 14, 15]),
        ..plain(C::Invoices, "invoices", "invoice", "subject", &[to("company", C::Companies), to("deal", C::Deals)])
    },
    Spec {
        filters: &[("paid_after", F::Day), ("paid_before", F::Day)],
        sorts: &[("paid_on", F::Day)],
        events: Some([32, 33, 34]),
        ..plain(C::Payments, "payments", "payment", "note", &[to("invoice", C::Invoices)])
    },
    Spec {
        filters: &[("after", F::Created), ("before", F::Created)],
        sorts: &[CREATED],
        ..plain(C::Activities, "activities", "activity", "", &[])
    },
    Spec { filters: &[CREATED], sorts: &[CREATED], ..plain(C::DeletedItems, "deleted_items", "deleted_item", "", &[]) },
    Spec { filters: &[CREATED], sorts: &[CREATED], ..plain(C::TimeEntryVersions, "time_entry_versions", "time_entry_version", "", &[]) },
    plain(C::Webhooks, "webhooks", "webhook", "", &[]),
    Spec { filters: &[("after", F::Created), ("before", F::Created)], ..plain(C::WebhookLogs, "webhook_logs", "webhook_log", "", &[]) },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalog_is_indexed_by_collection() {
        for (index, spec) in CATALOG.iter().enumerate() {
            assert_eq!(spec.collection as usize, index, "{}", spec.name);
            assert_eq!(Collection::named(spec.name), Some(spec.collection));
        }
    }
}
