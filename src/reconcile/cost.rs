//! What a pass costs, before it begins and on its way.

use std::time::Duration;

/// How the lists of a resource are walked, as far as it says what a pass costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lists {
    /// How many lists make a complete one.
    pub variants: u64,
    /// Records per page.
    pub page: u64,
    /// There is a list below each record of another resource, and these are walked by pages of this size.
    pub above: Option<u64>,
}

impl Lists {
    /// Requests of a pass that meets so many records, below so many others where lists are nested.
    ///
    /// An empty list costs one request too. How the records are spread over the lists is not known, so it is the most that it can be:
    /// each list but one ends with a page that is not full.
    #[must_use]
    pub fn requests(&self, records: u64, parents: u64) -> u64 {
        let page = self.page.max(1);
        match self.above {
            None => records.div_ceil(page).max(1) + self.variants.saturating_sub(1),
            Some(above) => parents.div_ceil(above.max(1)).max(1) + parents + records / page,
        }
    }
}

/// How long a sweep still takes that has met so many of so many records within `spent`; `None` before it has met any, or more than
/// there were.
#[must_use]
pub fn left(met: u64, of: u64, spent: Duration) -> Option<Duration> {
    let missing = of.checked_sub(met)?;
    // Amounts of records are far below 2^52.
    (met > 0).then(|| Duration::from_secs_f64(spent.as_secs_f64() * missing as f64 / met as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_left_takes_as_long_as_what_was_met() {
        let ten = Duration::from_secs(10);
        assert_eq!(left(100, 400, ten), Some(Duration::from_secs(30)));
        assert_eq!(left(400, 400, ten), Some(Duration::ZERO));
        assert_eq!((left(0, 400, ten), left(401, 400, ten)), (None, None), "nothing to go by");
    }

    /// What walking lists of these lengths really takes.
    fn walked(lists: &[u64], page: u64) -> u64 {
        lists.iter().map(|records| records.div_ceil(page).max(1)).sum()
    }

    proptest! {
        #[test]
        fn however_records_are_spread_a_plan_is_never_short_and_at_most_a_page_a_list_long(
            spread in prop::collection::vec(0_u64..2_000, 1..5),
            page in 1_u64..300,
        ) {
            let (records, variants) = (spread.iter().sum(), spread.len() as u64);
            let planned = Lists { variants, page, above: None }.requests(records, 0);
            let walked = walked(&spread, page);
            prop_assert!(walked <= planned && planned < walked + variants, "{planned} planned, {walked} walked");
        }

        #[test]
        fn a_plan_of_nested_lists_is_never_short_and_at_most_a_page_a_list_long(
            spread in prop::collection::vec(0_u64..500, 0..60),
            page in 1_u64..150,
            above in 1_u64..60,
        ) {
            let (records, parents) = (spread.iter().sum(), spread.len() as u64);
            let planned = Lists { variants: 1, page, above: Some(above) }.requests(records, parents);
            let walked = walked(&spread, page) + walked(&[parents], above);
            prop_assert!(walked <= planned && planned <= walked + parents, "{planned} planned, {walked} walked");
        }
    }
}
