//! Signatures of both event systems.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Of the Events API: over `<seconds>.<body>`, with the secret's literal text.
pub(super) fn events_api(secret: &str, seconds: i64, body: &[u8]) -> String {
    hex(secret, &[seconds.to_string().as_bytes(), b".", body])
}

/// Of the Event Platform and its notifications: over the body alone.
pub(super) fn event_platform(secret: &str, body: &[u8]) -> String {
    hex(secret, &[body])
}

fn hex(secret: &str, parts: &[&[u8]]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signatures_are_those_of_the_contracts_vectors() {
        let empty = "7d536679657fbef04ba613be414959a59e93f06443dd596aebf4bbb00540ae14";
        assert_eq!(events_api("a_secret", 1_577_836_800, b""), empty);
        let body = r#"{"events":[{"action":"product.removed","event_id":"00000000-0000-4000-8000-000000000001","event_datetime":"2026-01-01T00:00:00+00:00","author":"erp_0000","author_type":"api","pim_source":"https:\/\/pim.example.test","data":{"resource":{"identifier":"sku-1","uuid":"00000000-0000-4000-8000-0000000000aa"}}}]}"#;
        assert_eq!(body.len(), 307);
        let signed = "e5e7fccaa439d7c4dbca1c8f5fd9a8cb3d585ebe6f2950c0e0a0661c69024550";
        assert_eq!(events_api("unit-test-secret", 1_767_225_600, body.as_bytes()), signed);
        let body = r#"{"specversion":"1.0","id":"00000000-0000-7000-8000-000000000001","source":"akeneo-event-platform","type":"com.akeneo.pim.v1.product.deleted","subject":"00000000-0000-7000-8000-0000000000ff","datacontenttype":"application/json","dataschema":"https://event.prd.sdk.akeneo.cloud/spec/com.akeneo.pim.v1.product.deleted.schema.json","time":"2026-01-01T00:00:00Z","data":{"product":{"uuid":"00000000-0000-4000-8000-0000000000aa"},"author":{"identifier":"erp_0000","type":"api"}}}"#;
        assert_eq!(body.len(), 473);
        let primary = "8e7bb8b873e82974d21be60291895bfdb4f261cc34813edc8b0b5ab20aecd738";
        assert_eq!(event_platform("unit-primary", body.as_bytes()), primary);
        let secondary = "a35496e8f32c54e70fa3d6c545a6646ece1b1fc7f7de94f4c37294b1917e6744";
        assert_eq!(event_platform("unit-secondary", body.as_bytes()), secondary);
    }
}
