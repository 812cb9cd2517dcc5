//! A fake upstream in a process of its own, and what of it the replica must hold.

use std::collections::BTreeMap;

use serde_json::Value;

use super::compare::{Comparison, Payloads};
use super::process::{Directory, Running, own_program};
use super::replica::Replica;
use super::upstream::Upstream;
use super::{Error, akeneo, arm, reso};
use crate::connectors::ResourceSpec;

/// Whose fake it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Productive,
    Akeneo,
    Reso,
}

impl Of {
    const fn word(self) -> &'static str {
        match self {
            Self::Productive => "productive",
            Self::Akeneo => "akeneo",
            Self::Reso => "reso",
        }
    }
}

/// A running one, as a source of the daemon.
#[derive(Debug)]
pub(super) struct Fake {
    of: Of,
    /// The source's name, the first part of the views' names.
    pub(super) source: &'static str,
    /// The root of its API.
    pub(super) root: String,
    pub(super) upstream: Upstream,
    /// What the connector replicates; from it come the names and kinds of the views' columns.
    pub(super) specs: Vec<ResourceSpec>,
    _sandbox: Running,
}

/// What became of records that were changed behind everybody's back.
pub(super) struct Tampering {
    /// What the comparison named.
    pub(super) named: Vec<String>,
    /// Whether these are exactly the ones.
    pub(super) is_found: bool,
    pub(super) comparison: Comparison,
}

impl Fake {
    /// Starts its process with further `options`.
    pub(super) async fn start(of: Of, source: &'static str, options: &[&str], directory: &Directory) -> Result<Self, Error> {
        let arguments = [&["sandbox", of.word(), "--port", "0"], options].concat();
        let log = format!("sandbox-{}.log", of.word());
        let (sandbox, root) = Running::start_and_listen(own_program(&arguments, &directory.path, &log)?).await?;
        let specs = match of {
            Of::Productive => arm::specs(&root)?,
            Of::Akeneo => akeneo::specs(&root)?,
            Of::Reso => reso::specs(&root)?,
        };
        Ok(Self { of, source, upstream: Upstream::new(&root)?, root, specs, _sandbox: sandbox })
    }

    /// All its records against the rows of a replica.
    pub(super) async fn compare(&self, replica: &Replica) -> Result<Comparison, Error> {
        let payloads: Payloads = match self.of {
            Of::Productive => |of_record, record, payload| of_record.compare_payload(record, payload),
            Of::Akeneo => akeneo::truth::compare,
            Of::Reso => |of_record, record, payload| of_record.compare_fields(record, payload),
        };
        let mut found = Comparison::default();
        for spec in &self.specs {
            let records = self.records(spec.name.as_str()).await?;
            found.add(&replica.reader, self.source, spec, &records, payloads).await?;
        }
        Ok(found)
    }

    async fn records(&self, resource: &str) -> Result<BTreeMap<String, Value>, Error> {
        match self.of {
            Of::Productive => self.upstream.collection(resource).await,
            Of::Akeneo => akeneo::truth::records(&self.upstream, resource).await,
            Of::Reso => reso::truth::records(&self.upstream, resource).await,
        }
    }

    /// Changes records that nobody hears of, and compares. The daemon must have ended: a pass could repair it.
    pub(super) async fn tamper(&self, replica: &Replica, records: usize) -> Result<Tampering, Error> {
        let mut tampered = self.upstream.tamper(records).await?;
        let comparison = self.compare(replica).await?;
        let mut named: Vec<(String, String)> = comparison.differences.iter().map(|d| (d.resource.clone(), d.key.clone())).collect();
        named.sort();
        named.dedup();
        tampered.sort();
        let is_found = named == tampered && named.len() == records;
        let named = named.into_iter().map(|(resource, key)| format!("{resource} {key}")).collect();
        Ok(Tampering { named, is_found, comparison })
    }
}
