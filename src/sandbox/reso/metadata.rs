//! `$metadata` and the service document: what is served, and no more.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::options::Profile;
use super::resource::{CAN_VIEW, Resource};

/// The EDMX.
pub(super) fn edmx(profile: Profile) -> String {
    let mut types = String::new();
    let mut sets = String::new();
    for resource in Resource::ALL {
        let name = resource.name();
        let _ = write!(types, "<EntityType Name=\"{name}\"><Key><PropertyRef Name=\"{}\"/></Key>", resource.key());
        for (field, kind) in resource.fields() {
            let nullable = if *field == resource.key() { " Nullable=\"false\"" } else { "" };
            let _ = write!(types, "<Property Name=\"{field}\" Type=\"{}\"{nullable}/>", kind.edm());
        }
        if profile == Profile::Mlsgrid && resource != Resource::EntityEvent {
            let _ = write!(types, "<Property Name=\"{CAN_VIEW}\" Type=\"Edm.Boolean\"/>");
        }
        types.push_str("</EntityType>");
        let _ = write!(sets, "<EntitySet Name=\"{name}\" EntityType=\"org.reso.metadata.{name}\"/>");
    }
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<edmx:Edmx xmlns:edmx=\"http://docs.oasis-open.org/odata/ns/edmx\" Version=\"4.0\">\
         <edmx:DataServices><Schema xmlns=\"http://docs.oasis-open.org/odata/ns/edm\" Namespace=\"org.reso.metadata\">{types}\
         <EntityContainer Name=\"RESO\">{sets}</EntityContainer></Schema></edmx:DataServices></edmx:Edmx>\n"
    )
}

/// The service document at the root.
pub(super) fn service(root: &str) -> Value {
    let sets: Vec<Value> =
        Resource::ALL.iter().map(|resource| json!({ "name": resource.name(), "kind": "EntitySet", "url": resource.name() })).collect();
    json!({ "@odata.context": format!("{root}/odata/$metadata"), "value": sets })
}
