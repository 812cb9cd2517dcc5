//! Whether a replica is in step with the true state.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::{Universe, eventually};

impl Universe {
    /// Waits until the replica holds exactly what the upstream has, in every resource.
    pub(crate) async fn in_step(&self, deadline: Duration) {
        eventually("the replica is in step", deadline, async || {
            for resource in &self.resources {
                let differences = self.differences(resource).await?;
                if let Some(first) = differences.first() {
                    return Err(format!("{resource}: {} differences; {first}", differences.len()));
                }
            }
            Ok(())
        })
        .await;
    }

    /// Where the replica of a resource and the true state differ, field by field.
    pub(crate) async fn differences(&self, resource: &str) -> Result<Vec<String>, String> {
        self.differences_of("pmp", resource, &self.sandbox.truth(resource).await).await
    }

    /// Where the replica of a source's resource and a true state differ, field by field.
    pub(crate) async fn differences_of(
        &self,
        source: &str,
        resource: &str,
        truth: &BTreeMap<String, Value>,
    ) -> Result<Vec<String>, String> {
        Ok(differences(truth, &self.replica(&format!("{source}_{resource}")).await?, compare))
    }

    /// The live rows of a view by their keys.
    pub(crate) async fn replica(&self, view: &str) -> Result<BTreeMap<String, Value>, String> {
        let rows = self.database.try_rows(&format!("select key, payload from {view}"), &["key", "payload"]).await?;
        let mut replica = BTreeMap::new();
        for row in rows {
            let (Some(Some(key)), Some(Some(payload))) = (row.first().cloned(), row.get(1).cloned()) else {
                return Err("a row without key or payload".to_owned());
            };
            replica.insert(key, serde_json::from_str::<Value>(&payload).map_err(|error| error.to_string())?);
        }
        Ok(replica)
    }
}

/// What is only in one of them, and what `compare` finds of what is in both.
pub(crate) fn differences(
    truth: &BTreeMap<String, Value>,
    replica: &BTreeMap<String, Value>,
    compare: impl Fn(&str, &Value, &Value) -> Vec<String>,
) -> Vec<String> {
    let mut found: Vec<String> = truth.keys().filter(|key| !replica.contains_key(*key)).map(|key| format!("{key} is missing")).collect();
    for (key, held) in replica {
        match truth.get(key) {
            None => found.push(format!("{key} is gone upstream")),
            Some(record) => found.extend(compare(key, record, held)),
        }
    }
    found
}

/// Fields that change without the record changing are not compared.
const VOLATILE: [&str; 2] = ["last_activity_at", "last_seen_at"];

fn compare(key: &str, record: &Value, held: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let attributes = record["attributes"].as_object().cloned().unwrap_or_default();
    for (name, value) in attributes.iter().filter(|(name, _)| !VOLATILE.contains(&name.as_str())) {
        if held["attributes"].get(name) != Some(value) {
            found.push(format!("{key}.{name}: {value} upstream, {} here", held["attributes"][name]));
        }
    }
    for (name, relation) in held["relationships"].as_object().into_iter().flatten() {
        if relation["data"] != record["relationships"][name]["data"] {
            found.push(format!("{key}.{name}: {} upstream, {} here", record["relationships"][name]["data"], relation["data"]));
        }
    }
    found
}
