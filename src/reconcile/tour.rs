//! Noticing that a list leads in a circle.

/// Follows the cursors of one list and notices when one comes again, however long the circle: by Brent's method, with one cursor
/// in memory. A page or two more than the circle are read before it is noticed, at most three times its length.
#[derive(Clone, Debug, Default)]
pub struct Tour {
    kept: Option<String>,
    since_kept: u64,
    keep_for: u64,
}

impl Tour {
    /// Whether the list, which now leads on to `cursor`, has led there before.
    #[must_use]
    pub fn leads_back(&mut self, cursor: &str) -> bool {
        if self.kept.as_deref() == Some(cursor) {
            return true;
        }
        self.since_kept += 1;
        if self.since_kept >= self.keep_for {
            self.kept = Some(cursor.to_owned());
            self.keep_for = (self.keep_for * 2).max(1);
            self.since_kept = 0;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_page_that_leads_to_itself_is_a_circle() {
        let mut tour = Tour::default();
        assert!(!tour.leads_back("a") && tour.leads_back("a"));
    }

    proptest! {
        #[test]
        fn every_circle_is_noticed_soon_and_no_straight_list_ever(straight in 0_u32..60, circle in 1_u32..60) {
            let mut tour = Tour::default();
            prop_assert!((0..500).all(|page| !tour.leads_back(&page.to_string())));
            let mut tour = Tour::default();
            let pages = (0..straight).chain((0..).map(|page| straight + page % circle));
            let noticed = pages.take(1_000).position(|page| tour.leads_back(&page.to_string()));
            prop_assert!(noticed.is_some_and(|at| at as u32 <= 3 * (straight + circle)), "{noticed:?}");
        }
    }
}
