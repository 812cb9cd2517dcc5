//! A file that names the delivery being decoded at this moment.
//!
//! Written without a sync: it has to outlive the process, not the machine.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use uuid::Uuid;

use crate::model::DeliveryId;

const NOBODY: [u8; 16] = [0; 16];

/// The file; without one (it cannot be opened) deaths are not counted.
pub(super) struct Witness(Option<File>);

/// While this lives the file names a delivery.
pub(super) struct Decoding<'a>(&'a Witness);

impl Witness {
    /// Opens the file, and answers with the delivery that it named: the process before us ended while decoding it.
    pub(super) fn open(path: &Path) -> (Self, Option<DeliveryId>) {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = file.inspect_err(|error| tracing::warn!(%error, "deaths of the process cannot be told from other ends")).ok();
        let mut named = NOBODY;
        if let Some(file) = &file
            && file.read_exact_at(&mut named, 0).is_err()
        {
            named = NOBODY;
        }
        let witness = Self(file);
        witness.write(NOBODY);
        (witness, (named != NOBODY).then(|| DeliveryId(Uuid::from_bytes(named))))
    }

    /// From now on a death is this delivery's.
    pub(super) fn of(&self, id: DeliveryId) -> Decoding<'_> {
        self.write(id.0.into_bytes());
        Decoding(self)
    }

    fn write(&self, name: [u8; 16]) {
        if let Some(file) = &self.0 {
            // What cannot be written is not counted; the delivery is decoded all the same.
            let _ = file.write_all_at(&name, 0);
        }
    }
}

impl Drop for Decoding<'_> {
    fn drop(&mut self) {
        self.0.write(NOBODY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_death_while_decoding_leaves_a_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("decoding-pmp");
        let id = DeliveryId(Uuid::from_u128(7));
        let (witness, named) = Witness::open(&path);
        assert_eq!(named, None);
        drop(witness.of(id));
        assert_eq!(Witness::open(&path).1, None, "decoded");
        let (witness, _) = Witness::open(&path);
        let decoding = witness.of(id);
        assert_eq!(Witness::open(&path).1, Some(id), "a process that died here would leave this");
        drop(decoding);
    }
}
