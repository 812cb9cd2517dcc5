//! What Productive has: one line of spec a resource, one a webhook event, one a feed.
//!
//! Sources: the vendor's filter and sort tables, event ids and recycle bin, as collected in the contract (sections 1.5, 1.7, 1.8).
//! To-one relations are always part of the projection, so that every foreign key is there.

use std::time::Duration;

use crate::connectors::ColumnKind::{self, Bool, Date, Instant, Integer, Json, Text};
use crate::connectors::{FeedOrder, FeedSpec};
use crate::model::Operation;

/// How a collection can be asked for what changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Changes {
    /// By `filter[<field>][gt_eq]=<instant>`.
    Since(&'static str),
    /// By `filter[<field>][gt_eq]=<day>`: the vendor's own format of this filter is a date.
    SinceDay(&'static str),
    /// Newest first by this attribute, until a page is older than the bound.
    Newest(&'static str),
    /// Not at all: full lists only.
    None,
}

/// One collection. Its path and JSON:API type are its name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// `updated_at` where the vendor documents it; nothing else is a version.
    pub(super) version: Option<&'static str>,
    pub(super) changes: Changes,
    /// To-one relations.
    pub(super) relations: &'static [&'static str],
    /// Typed columns, by attribute.
    pub(super) columns: &'static [(&'static str, ColumnKind)],
    /// The lists that together hold every record.
    pub(super) variants: &'static [&'static str],
}

const ALL: &[&str] = &[""];
/// Archived records have a status of their own; whether a list without it hides them is unknown, so both are asked for.
const BY_STATUS: &[&str] = &["filter[status]=1", "filter[status]=2"];
const PROJECTS: &[&str] = &["filter[status]=1&filter[with_templates]=true", "filter[status]=2&filter[with_templates]=true"];

const UPDATED: Option<&str> = Some("updated_at");

#[rustfmt::skip]
pub(super) const KINDS: &[Kind] = &[
    Kind { name: "projects", version: None, changes: Changes::Newest("last_activity_at"), variants: PROJECTS,
        relations: &["company", "project_manager", "workflow"],
        columns: &[("name", Text), ("number", Text), ("project_number", Text), ("project_type_id", Integer), ("template", Bool), ("archived_at", Instant), ("created_at", Instant), ("last_activity_at", Instant), ("custom_fields", Json)] },
    Kind { name: "tasks", version: UPDATED, changes: Changes::Since("updated_at"), variants: ALL,
        relations: &["project", "task_list", "assignee", "workflow_status", "creator"],
        columns: &[("title", Text), ("description", Text), ("number", Text), ("task_number", Text), ("private", Bool), ("closed", Bool), ("closed_at", Instant), ("due_date", Date), ("start_date", Date), ("type_id", Integer), ("placement", Integer), ("todo_count", Integer), ("open_todo_count", Integer), ("subtask_count", Integer), ("tag_list", Json), ("custom_fields", Json), ("created_at", Instant), ("updated_at", Instant), ("last_activity_at", Instant)] },
    Kind { name: "task_lists", version: None, changes: Changes::None, variants: BY_STATUS,
        relations: &["project", "board"],
        columns: &[("name", Text), ("position", Integer), ("placement", Integer), ("archived_at", Instant)] },
    Kind { name: "boards", version: None, changes: Changes::None, variants: BY_STATUS,
        relations: &["project"],
        columns: &[("name", Text), ("position", Integer), ("placement", Integer), ("hidden", Bool), ("archived_at", Instant)] },
    Kind { name: "people", version: None, changes: Changes::None, variants: BY_STATUS,
        relations: &["company"],
        columns: &[("first_name", Text), ("last_name", Text), ("email", Text), ("title", Text), ("role_id", Integer), ("placeholder", Bool), ("archived_at", Instant), ("deactivated_at", Instant), ("joined_at", Instant), ("created_at", Instant), ("last_activity_at", Instant), ("custom_fields", Json)] },
    Kind { name: "companies", version: None, changes: Changes::Newest("last_activity_at"), variants: BY_STATUS,
        relations: &[],
        columns: &[("name", Text), ("billing_name", Text), ("company_code", Text), ("vat", Text), ("default_currency", Text), ("domain", Text), ("archived_at", Instant), ("created_at", Instant), ("last_activity_at", Instant), ("custom_fields", Json)] },
    Kind { name: "deals", version: None, changes: Changes::Newest("last_activity_at"), variants: ALL,
        relations: &["company", "project", "responsible"],
        columns: &[("name", Text), ("number", Text), ("deal_number", Text), ("date", Date), ("end_date", Date), ("budget", Bool), ("deal_type_id", Integer), ("currency", Text), ("probability", Integer), ("closed_at", Instant), ("won_at", Instant), ("lost_at", Instant), ("created_at", Instant), ("last_activity_at", Instant), ("custom_fields", Json)] },
    Kind { name: "services", version: UPDATED, changes: Changes::SinceDay("updated_at"), variants: ALL,
        relations: &["deal"],
        columns: &[("name", Text), ("billable", Bool), ("budgeted_time", Integer), ("worked_time", Integer), ("booked_time", Integer), ("billing_type_id", Integer), ("unit_id", Integer), ("price", Integer), ("currency", Text), ("created_at", Instant), ("updated_at", Instant)] },
    Kind { name: "bookings", version: UPDATED, changes: Changes::Since("updated_at"), variants: ALL,
        relations: &["person", "service"],
        columns: &[("started_on", Date), ("ended_on", Date), ("time", Integer), ("total_time", Integer), ("percentage", Integer), ("approved", Bool), ("draft", Bool), ("canceled", Bool), ("note", Text), ("created_at", Instant), ("updated_at", Instant), ("last_activity_at", Instant)] },
    Kind { name: "time_entries", version: UPDATED, changes: Changes::Since("updated_at"), variants: ALL,
        relations: &["person", "service", "task"],
        columns: &[("date", Date), ("time", Integer), ("billable_time", Integer), ("recognized_time", Integer), ("note", Text), ("approved", Bool), ("approved_at", Instant), ("submitted", Bool), ("invoiced", Bool), ("overhead", Bool), ("rejected", Bool), ("started_at", Instant), ("created_at", Instant), ("updated_at", Instant), ("last_activity_at", Instant)] },
    Kind { name: "comments", version: None, changes: Changes::Newest("created_at"), variants: ALL,
        relations: &["task", "creator"],
        columns: &[("body", Text), ("commentable_type", Text), ("pinned_at", Instant), ("edited_at", Instant), ("created_at", Instant)] },
    Kind { name: "invoices", version: None, changes: Changes::Newest("last_activity_at"), variants: ALL,
        relations: &["company", "deal"],
        columns: &[("number", Text), ("subject", Text), ("invoiced_on", Date), ("sent_on", Date), ("pay_on", Date), ("paid_on", Date), ("amount", Integer), ("amount_tax", Integer), ("amount_paid", Integer), ("amount_unpaid", Integer), ("currency", Text), ("invoice_type_id", Integer), ("created_at", Instant), ("last_activity_at", Instant), ("custom_fields", Json)] },
    Kind { name: "payments", version: None, changes: Changes::None, variants: ALL,
        relations: &["invoice"],
        columns: &[("amount", Integer), ("currency", Text), ("paid_on", Date), ("write_off", Bool)] },
    Kind { name: "expenses", version: None, changes: Changes::Newest("created_at"), variants: ALL,
        relations: &["person", "service"],
        columns: &[("name", Text), ("date", Date), ("amount", Integer), ("billable_amount", Integer), ("currency", Text), ("approved", Bool), ("reimbursable", Bool), ("created_at", Instant)] },
    Kind { name: "workflows", version: None, changes: Changes::None, variants: ALL,
        relations: &[],
        columns: &[("name", Text), ("archived_at", Instant)] },
    Kind { name: "workflow_statuses", version: None, changes: Changes::None, variants: ALL,
        relations: &["workflow"],
        columns: &[("name", Text), ("color_id", Integer), ("position", Integer), ("category_id", Integer)] },
    Kind { name: "custom_fields", version: None, changes: Changes::None, variants: ALL,
        relations: &[],
        columns: &[("name", Text), ("customizable_type", Text), ("data_type", Integer), ("data_type_id", Integer), ("required", Bool), ("archived", Bool), ("archived_at", Instant), ("created_at", Instant)] },
    Kind { name: "custom_field_options", version: None, changes: Changes::None, variants: ALL,
        relations: &["custom_field"],
        columns: &[("name", Text), ("value", Text), ("position", Integer), ("archived", Bool), ("archived_at", Instant)] },
    Kind { name: "memberships", version: None, changes: Changes::None, variants: ALL,
        relations: &["person", "project"],
        columns: &[("type_id", Integer), ("target_type", Text), ("access_type_id", Integer)] },
    Kind { name: "pages", version: UPDATED, changes: Changes::Newest("updated_at"), variants: ALL,
        relations: &["project", "creator"],
        columns: &[("title", Text), ("body", Json), ("version_number", Text), ("created_at", Instant), ("updated_at", Instant), ("last_activity_at", Instant)] },
    Kind { name: "todos", version: None, changes: Changes::None, variants: ALL,
        relations: &["task", "assignee"],
        columns: &[("description", Text), ("closed", Bool), ("closed_at", Instant), ("due_date", Date), ("position", Integer), ("created_at", Instant)] },
    Kind { name: "task_dependencies", version: UPDATED, changes: Changes::Since("updated_at"), variants: ALL,
        relations: &["task", "dependent_task"],
        columns: &[("type_id", Integer), ("created_at", Instant), ("updated_at", Instant)] },
];

/// A webhook event: the vendor's id, the route that carries it, the collection, what it announces.
pub(super) struct HookEvent {
    pub(super) id: u8,
    pub(super) route: &'static str,
    pub(super) resource: &'static str,
    pub(super) operation: Operation,
}

const fn hook(id: u8, route: &'static str, resource: &'static str, operation: Operation) -> HookEvent {
    HookEvent { id, route, resource, operation }
}

/// The vendor's event table. People and companies are archived, never deleted: that is an update.
#[rustfmt::skip]
pub(super) const HOOK_EVENTS: &[HookEvent] = &[
    hook(1, "task-created", "tasks", Operation::Create), hook(24, "task-updated", "tasks", Operation::Update), hook(25, "task-deleted", "tasks", Operation::Delete),
    hook(2, "invoice-created", "invoices", Operation::Create), hook(14, "invoice-updated", "invoices", Operation::Update), hook(15, "invoice-deleted", "invoices", Operation::Delete),
    hook(3, "deal-created", "deals", Operation::Create), hook(12, "deal-updated", "deals", Operation::Update), hook(13, "deal-deleted", "deals", Operation::Delete),
    hook(4, "budget-created", "deals", Operation::Create), hook(16, "budget-updated", "deals", Operation::Update), hook(20, "budget-deleted", "deals", Operation::Delete),
    hook(5, "project-created", "projects", Operation::Create), hook(10, "project-updated", "projects", Operation::Update), hook(11, "project-deleted", "projects", Operation::Delete),
    hook(7, "time-entry-created", "time_entries", Operation::Create), hook(8, "time-entry-updated", "time_entries", Operation::Update), hook(9, "time-entry-deleted", "time_entries", Operation::Delete),
    hook(17, "booking-created", "bookings", Operation::Create), hook(18, "booking-updated", "bookings", Operation::Update), hook(19, "booking-deleted", "bookings", Operation::Delete),
    hook(21, "expense-created", "expenses", Operation::Create), hook(22, "expense-updated", "expenses", Operation::Update), hook(23, "expense-deleted", "expenses", Operation::Delete),
    hook(26, "person-created", "people", Operation::Create), hook(27, "person-updated", "people", Operation::Update), hook(28, "person-archived", "people", Operation::Update),
    hook(29, "company-created", "companies", Operation::Create), hook(30, "company-updated", "companies", Operation::Update), hook(31, "company-archived", "companies", Operation::Update),
    hook(32, "payment-created", "payments", Operation::Create), hook(33, "payment-updated", "payments", Operation::Update), hook(34, "payment-deleted", "payments", Operation::Delete),
];

/// Everything that happened, for most objects.
pub(super) const ACTIVITIES: FeedSpec = FeedSpec { name: "activities", order: FeedOrder::Stamps { overlap: OVERLAP } };
/// The recycle bin.
pub(super) const DELETED_ITEMS: FeedSpec = FeedSpec { name: "deleted_items", order: FeedOrder::Stamps { overlap: OVERLAP } };
/// The append-only history of time entries.
pub(super) const TIME_ENTRY_VERSIONS: FeedSpec = FeedSpec { name: "time_entry_versions", order: FeedOrder::Stamps { overlap: OVERLAP } };

/// Rows may commit late and become visible out of order; nothing is documented, so two minutes are asked for again.
const OVERLAP: Duration = Duration::from_secs(120);

/// The collection that an `item_type` of `activities` or `deleted_items` means; `None`: one we do not replicate.
pub(super) fn resource_of_item(item_type: &str) -> Option<&'static str> {
    let word = item_type.to_ascii_lowercase();
    let name = match word.as_str() {
        "budget" | "deal" => "deals",
        "project" | "template" => "projects",
        "person" => "people",
        "company" => "companies",
        "time_entry" | "timeentry" => "time_entries",
        "todo" => "todos",
        "task_dependency" => "task_dependencies",
        "workflow_status" => "workflow_statuses",
        other => return KINDS.iter().map(|kind| kind.name).find(|name| name.strip_suffix('s') == Some(other)),
    };
    Some(name)
}
