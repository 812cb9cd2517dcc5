//! Records as JSON:API resources.

use serde_json::{Map, Value, json};

use super::catalog::{CATALOG, Collection as C};
use super::dice::mix;
use super::moment::{date, date_time, date_time_whole, day_of};
use super::world::Record;

/// Which relations carry linkage: those asked for by `include`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Linkage {
    All,
    Named(Vec<String>),
}

impl Linkage {
    pub(super) fn covers(&self, relation: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.iter().any(|name| name == relation),
        }
    }
}

/// What rendering needs to know beside the record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Renderer {
    pub(super) seed: u64,
    pub(super) organization: u64,
}

impl Renderer {
    /// One resource object.
    pub(super) fn resource(self, collection: C, id: u32, record: &Record, linkage: &Linkage) -> Value {
        json!({
            "id": id.to_string(),
            "type": collection.spec().name,
            "attributes": self.attributes(collection, id, record),
            "relationships": self.relationships(collection, record, linkage),
        })
    }

    /// The attributes of a record.
    pub(super) fn attributes(self, collection: C, id: u32, record: &Record) -> Map<String, Value> {
        let hash = mix(&[self.seed, collection as u64, u64::from(id)]);
        let invented = match collection {
            C::Activities => activity(record),
            C::DeletedItems => deleted_item(record),
            C::TimeEntryVersions => json!({ "event": event_word(record), "item_id": record.to[1], "object_changes": {} }),
            C::Webhooks | C::WebhookLogs => json!({}),
            C::Tasks => task(id, record, hash),
            C::TimeEntries => time_entry(record, hash),
            C::Projects => project(id, record, hash),
            C::People => person(id, record, hash),
            C::Deals => deal(id, record, hash),
            C::Bookings => booking(record, hash),
            C::Services | C::Invoices | C::Payments | C::Expenses => money(collection, id, record, hash),
            C::Workflows | C::WorkflowStatuses | C::CustomFields | C::CustomFieldOptions => settings(collection, id, hash),
            _ => other(collection, id, hash),
        };
        let Value::Object(mut attributes) = invented else { return Map::new() };
        moments(collection, record, &mut attributes);
        if let Some(own) = &record.own
            && !matches!(collection, C::Activities | C::DeletedItems)
        {
            attributes.extend(own.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        attributes
    }

    /// The relations, of which only the organisation always carries linkage.
    pub(super) fn relationships(self, collection: C, record: &Record, linkage: &Linkage) -> Map<String, Value> {
        let organization = json!({ "data": { "type": "organizations", "id": self.organization.to_string() } });
        let mut relationships = Map::from_iter([("organization".to_owned(), organization)]);
        for (relation, &to) in collection.spec().relations.iter().zip(&record.to) {
            let value = match to {
                _ if !linkage.covers(relation.name) => json!({ "meta": { "included": false } }),
                0 => json!({ "data": null }),
                to => json!({ "data": { "type": relation.target.spec().name, "id": to.to_string() } }),
            };
            relationships.insert(relation.name.to_owned(), value);
        }
        let never_included = match collection {
            C::Activities | C::Webhooks => "creator",
            C::DeletedItems => "deleter",
            C::WebhookLogs => "webhook",
            _ => return relationships,
        };
        relationships.insert(never_included.to_owned(), json!({ "meta": { "included": false } }));
        relationships
    }
}

/// Times, which are attributes of the record and not inventions.
fn moments(collection: C, record: &Record, attributes: &mut Map<String, Value>) {
    if !matches!(collection, C::Workflows | C::WorkflowStatuses | C::CustomFields | C::CustomFieldOptions | C::Webhooks) {
        attributes.insert("created_at".into(), date_time(record.created_us).into());
    }
    if collection.spec().has_updated_at {
        attributes.insert("updated_at".into(), date_time(record.updated_us).into());
    }
    if !collection.is_log() && (collection.spec().has_archive || collection.spec().events.is_some() || collection == C::Pages) {
        attributes.insert("last_activity_at".into(), date_time_whole(record.activity_us).into());
    }
    if collection.spec().has_archive {
        attributes.insert("archived_at".into(), ended(record));
    }
}

fn ended(record: &Record) -> Value {
    if record.ended_us == 0 { Value::Null } else { date_time(record.ended_us).into() }
}

/// The `date`, `started_on` or `paid_on` of a record that nobody changed.
pub(super) fn own_day(record: &Record) -> i64 {
    day_of(record.created_us)
}

/// Words with what JSON must escape or keep: quotes, markup, letters outside ASCII, an emoji.
const WORDS: [&str; 16] = [
    "Website",
    "Zażółć",
    "R&D",
    "Größe",
    "<beta>",
    "launch",
    "“quoted”",
    "naïve",
    "北京",
    "Release",
    "Q3",
    "sync",
    "café",
    "🚀",
    "audit",
    "retro",
];

fn words(hash: u64, count: usize) -> String {
    let word = |index: usize| WORDS[(hash >> (4 * index)) as usize & 15];
    (0..count).map(word).collect::<Vec<_>>().join(" ")
}

/// An object keyed by custom field ids, or null.
fn custom_fields(hash: u64) -> Value {
    if !hash.is_multiple_of(3) {
        return Value::Null;
    }
    let field = C::CustomFields.spec().first_id + 1 + (hash % 10) as u32;
    let option = C::CustomFieldOptions.spec().first_id + 1 + (hash % 30) as u32;
    json!({ field.to_string(): words(hash, 1), (field + 1).to_string(): option.to_string() })
}

fn task(id: u32, record: &Record, hash: u64) -> Value {
    let number = (id - C::Tasks.spec().first_id).to_string();
    let due = if hash.is_multiple_of(4) { Value::Null } else { date(own_day(record) + (hash % 60) as i64).into() };
    json!({
        "title": format!("{} {number}", words(hash, 3)), "description": format!("<p>{}</p>", words(hash >> 12, 8)),
        "number": number, "task_number": number, "private": hash.is_multiple_of(50), "due_date": due,
        "start_date": null, "due_time": null, "closed": record.ended_us != 0, "closed_at": ended(record),
        "repeat_schedule_id": null, "repeat_on_interval": null, "repeat_on_weekday": null, "repeat_on_date": null,
        "custom_fields": custom_fields(hash), "todo_count": hash % 5, "open_todo_count": hash % 3, "subtask_count": 0,
        "open_subtask_count": 0, "dependency_count": 0, "type_id": 1, "placement": u64::from(id) * 1000,
        "initial_estimate": hash % 960, "remaining_time": hash % 480, "worked_time": hash % 600, "billable_time": hash % 500,
        "tag_list": if hash.is_multiple_of(7) { json!(["urgent", "client"]) } else { json!([]) }, "subtask_placement": null,
    })
}

fn time_entry(record: &Record, hash: u64) -> Value {
    let time = 15 * (1 + hash % 32);
    let approved = hash.is_multiple_of(2);
    json!({
        "date": date(own_day(record)), "time": time, "billable_time": if hash.is_multiple_of(3) { 0 } else { time }, "recognized_time": 0,
        "note": words(hash, 4), "track_method_id": 1, "started_at": null, "timer_started_at": null, "approved": approved,
        "approved_at": if approved { date_time(record.created_us).into() } else { Value::Null }, "invoiced": hash.is_multiple_of(5),
        "overhead": false, "rejected": false, "rejected_at": null, "rejected_reason": null, "submitted": false, "currency": "EUR",
        "currency_default": "EUR", "currency_normalized": "EUR", "cost": time * 75, "cost_default": time * 75, "cost_normalized": time * 75,
        "custom_fields": null,
    })
}

fn project(id: u32, record: &Record, hash: u64) -> Value {
    let number = (id - C::Projects.spec().first_id).to_string();
    json!({
        "name": format!("{} {number}", words(hash, 2)), "number": number, "project_number": number, "preferences": {},
        "project_type_id": 1 + hash % 2, "project_color_id": hash % 12, "public_access": false, "time_on_tasks": true,
        "tag_colors": {}, "template": record.special, "duplication_status": null, "custom_fields": custom_fields(hash),
        "task_custom_fields_ids": [], "task_custom_fields_positions": {}, "sample_data": false,
    })
}

fn person(id: u32, record: &Record, hash: u64) -> Value {
    json!({
        "first_name": words(hash, 1), "last_name": format!("{} {}", words(hash >> 8, 1), id), "email": format!("person{id}@agency.example"),
        "nickname": null, "title": words(hash >> 16, 2), "role_id": 1 + hash % 9, "avatar_url": null, "deactivated_at": null,
        "joined_at": date_time(record.created_us), "last_seen_at": null, "placeholder": false, "hrm_type_id": null, "virtual": false,
        "availabilities": "[[\"2024-01-01\",null,[8,8,8,8,8,0,0]]]", "tag_list": [], "custom_fields": custom_fields(hash),
        "status": if record.ended_us == 0 { 1 } else { 2 },
    })
}

fn deal(id: u32, record: &Record, hash: u64) -> Value {
    let number = (id - C::Deals.spec().first_id).to_string();
    let revenue = 100_000 + hash % 9_000_000;
    json!({
        "name": format!("{} {number}", words(hash, 2)), "number": number, "deal_number": number, "budget": record.special,
        "deal_type_id": 1 + hash % 2, "date": date(own_day(record)), "end_date": null, "closed_at": null, "won_at": null, "lost_at": null,
        "stage_updated_at": null, "probability": hash % 101, "currency": "EUR", "currency_default": "EUR", "currency_normalized": "EUR",
        "revenue": revenue, "revenue_default": revenue, "revenue_normalized": revenue, "cost": revenue / 2, "cost_default": revenue / 2,
        "cost_normalized": revenue / 2, "tag_list": [], "custom_fields": custom_fields(hash), "note": null, "purchase_order_number": null,
    })
}

fn booking(record: &Record, hash: u64) -> Value {
    let day = own_day(record);
    json!({
        "started_on": date(day), "ended_on": date(day + (hash % 20) as i64), "time": 60 * (1 + hash % 8), "total_time": 480,
        "percentage": null, "hours": null, "note": words(hash, 3), "draft": hash.is_multiple_of(6), "approved": true, "approved_at": null,
        "canceled": record.ended_us != 0, "canceled_at": ended(record), "booking_method_id": 1 + hash % 3, "rejected": false,
        "stage_type": null, "custom_fields": custom_fields(hash),
    })
}

fn money(collection: C, id: u32, record: &Record, hash: u64) -> Value {
    let amount = 1_000 + hash % 2_000_000;
    let day = own_day(record);
    let mut value = match collection {
        C::Services => json!({
            "name": format!("{} {id}", words(hash, 2)), "position": hash % 20, "billable": true, "billing_type_id": 1 + hash % 3,
            "unit_id": 1 + hash % 2, "quantity": (hash % 100).to_string(), "price": amount, "price_default": amount,
            "price_normalized": amount, "budgeted_time": hash % 6000, "worked_time": hash % 3000, "custom_fields": custom_fields(hash),
        }),
        C::Invoices => json!({
            "number": id.to_string(), "subject": words(hash, 3), "invoiced_on": date(day), "sent_on": null, "pay_on": date(day + 30),
            "paid_on": null, "finalized_on": date(day), "amount": amount, "amount_default": amount, "amount_normalized": amount,
            "amount_tax": amount / 5, "amount_paid": 0, "custom_fields": null, "tag_list": [], "invoice_state_id": 1,
        }),
        C::Payments => json!({
            "amount": amount, "amount_default": amount, "amount_normalized": amount, "paid_on": date(day), "written_off": false,
            "note": words(hash, 2),
        }),
        _ => json!({
            "name": words(hash, 2), "date": date(day), "pay_on": null, "paid_on": null, "position": 0, "quantity": "1.0",
            "billable_amount": amount, "billable_amount_default": amount, "billable_amount_normalized": amount, "amount": amount,
            "amount_default": amount, "amount_normalized": amount, "approved": true, "draft": false, "custom_fields": null,
        }),
    };
    value["currency"] = "EUR".into();
    value["currency_default"] = "EUR".into();
    value["currency_normalized"] = "EUR".into();
    value
}

fn settings(collection: C, id: u32, hash: u64) -> Value {
    let name = format!("{} {id}", words(hash, 1));
    match collection {
        C::Workflows => json!({ "name": name, "archived_at": null }),
        C::WorkflowStatuses => {
            json!({ "name": name, "color_id": hash % 12, "position": hash % 9, "category_id": 1 + hash % 3 })
        }
        C::CustomFields => json!({
            "name": name, "data_type": 1 + hash % 3, "required": false, "description": null, "archived_at": null,
            "customizable_type": "Tasks", "show_in_add_edit_views": true, "sensitive": false, "position": hash % 9, "global": true,
        }),
        _ => json!({ "name": name, "position": hash % 9, "color_id": null, "archived_at": null }),
    }
}

fn other(collection: C, id: u32, hash: u64) -> Value {
    match collection {
        C::Companies => json!({
            "name": format!("{} {id}", words(hash, 2)), "billing_name": null, "vat": null, "default_currency": "EUR",
            "company_code": id.to_string(), "invoice_email_recipients": [], "custom_fields": custom_fields(hash), "tag_list": [],
            "due_days": 30, "avatar_url": null, "domain": null, "sample_data": false,
        }),
        C::Memberships => json!({ "access_type_id": 1 + hash % 4, "type_id": 1, "target_type": "project" }),
        C::Boards => json!({ "name": format!("{} {id}", words(hash, 1)), "position": hash % 9, "placement": u64::from(id) * 1000 }),
        C::TaskLists => json!({ "name": format!("{} {id}", words(hash, 2)), "position": hash % 99, "placement": u64::from(id) * 1000 }),
        C::TaskDependencies => json!({ "type_id": 1 + hash % 3 }),
        C::Todos => json!({
            "description": words(hash, 4), "closed": hash.is_multiple_of(2), "closed_at": null, "due_date": null, "due_time": null,
            "position": hash % 20, "todoable_type": "task",
        }),
        C::Comments => json!({
            "body": format!("<p>{}</p>", words(hash, 9)), "commentable_type": "task", "draft": false, "edited_at": null, "hidden": false,
            "pinned_at": null, "reactions": {}, "version_number": 1,
        }),
        _ => json!({
            "title": words(hash, 3), "body": null, "cover_image_url": null, "edited_at": null, "icon_id": null, "position": 0,
            "preferences": {}, "version_number": "1", "public_access": false, "custom_fields": null,
        }),
    }
}

/// `to` of a log row: (collection, id, event).
fn event_word(record: &Record) -> &'static str {
    ["create", "update", "delete", "restore"].get(record.to[2] as usize).copied().unwrap_or("update")
}

fn log_item(record: &Record) -> &'static str {
    let collection = CATALOG.get(record.to[0] as usize).map_or("task", |spec| spec.item);
    if record.special { "budget" } else { collection }
}

fn activity(record: &Record) -> Value {
    let deleted = event_word(record) == "delete";
    let item = log_item(record);
    json!({
        "event": event_word(record), "changeset": record.own("changeset").cloned().unwrap_or_else(|| json!([])),
        "item_id": record.to[1], "item_type": if record.special { "deal" } else { item }, "item_name": record.own("name"),
        "item_deleted_at": if deleted { date_time(record.created_us).into() } else { Value::Null },
        "parent_id": null, "parent_type": null, "parent_name": null, "parent_deleted_at": null, "root_id": null, "root_type": null,
        "root_name": null, "root_deleted_at": null, "deal_is_budget": record.special, "task_id": if item == "task" { record.to[1].into() } else { Value::Null },
        "deal_id": if item == "deal" || record.special { record.to[1].into() } else { Value::Null },
    })
}

fn deleted_item(record: &Record) -> Value {
    json!({
        "item_id": record.to[1], "item_type": log_item(record), "name": record.own("name"), "location": "My organization",
        "deleter_id": 1311, "private": false, "recovered_at": null,
    })
}
