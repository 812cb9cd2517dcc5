//! Absence is suspicious: how much may be removed because the upstream does not show it any more.
//!
//! The budget belongs to (source, resource) and counts removals by absence alone from every cause (marks, passes, cascades,
//! refreshes) over a rolling day. A delete that was announced and confirmed by a read has two witnesses and spends nothing.

/// What speaks for a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Witness {
    /// An announced delete (event, flag, deleted feed) that a read confirmed.
    AnnouncedAndConfirmed,
    /// Only that the record is not there.
    AbsenceAlone,
}

/// What is known of the control: a key known alive, read in the same minute as the candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Not read within the minute.
    Unread,
    /// It answered.
    Alive,
    /// It is absent as well: what is gone is our permission to see.
    Absent,
}

/// Candidates whose absence is confirmed, by what speaks for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    /// With [`Witness::AnnouncedAndConfirmed`].
    pub announced: u64,
    /// With [`Witness::AbsenceAlone`].
    pub absent: u64,
}

impl Candidates {
    /// Counts one more.
    pub fn add(&mut self, witness: Witness) {
        match witness {
            Witness::AnnouncedAndConfirmed => self.announced += 1,
            Witness::AbsenceAlone => self.absent += 1,
        }
    }
}

/// What may be removed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removal {
    /// How many announced ones: always all.
    pub announced: u64,
    /// How many of the merely absent ones.
    pub absent: u64,
    /// Why the other absent ones stay, if any do.
    pub hold: Option<Hold>,
}

/// Why rows stay although they are absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Read the control key first, then decide anew.
    NeedsControl,
    /// The control is absent too: the source's view is lost (permission gone), nothing is removed.
    ViewLost,
    /// The budget is spent: the operator decides, or it comes back with time.
    OverBudget,
}

/// The budget of a resource at one instant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RemovalBudget {
    /// Live rows now.
    pub live_rows: u64,
    /// Rows removed by absence alone in the last 24 h.
    pub removed_in_24h: u64,
    /// Share of the rows of a day ago that may go; from 0 to 1.
    pub share: f64,
    /// So many may always go: small tables would stand still otherwise.
    pub floor: u64,
    /// Never more than this unasked: a fifth of a million is too much.
    pub cap: u64,
}

impl RemovalBudget {
    /// The budget with the default rule: max(10 rows, 20 %), at most 1,000.
    #[must_use]
    pub fn new(live_rows: u64, removed_in_24h: u64) -> Self {
        Self { live_rows, removed_in_24h, share: 0.20, floor: 10, cap: 1_000 }
    }

    /// How many more rows may be removed by absence alone; never the last live row.
    ///
    /// The share is of the rows that there were a day ago, so that a removal does not shrink what the next is measured by.
    #[must_use]
    pub fn left(&self) -> u64 {
        let rows = self.live_rows.saturating_add(self.removed_in_24h);
        let share = (rows as f64 * self.share.clamp(0.0, 1.0)).floor() as u64;
        let allowed = share.max(self.floor).min(self.cap);
        allowed.saturating_sub(self.removed_in_24h).min(self.live_rows.saturating_sub(1))
    }

    /// Decides over confirmed candidates.
    #[must_use]
    pub fn decide(&self, candidates: Candidates, control: Control) -> Removal {
        let announced = candidates.announced;
        let keep = |hold| Removal { announced, absent: 0, hold: Some(hold) };
        if candidates.absent == 0 {
            return Removal { announced, absent: 0, hold: None };
        }
        match control {
            Control::Unread => keep(Hold::NeedsControl),
            Control::Absent => keep(Hold::ViewLost),
            Control::Alive => {
                // Announced rows go in the same breath, so the last live row is measured without them.
                let after = Self { live_rows: self.live_rows.saturating_sub(announced), ..*self };
                let absent = candidates.absent.min(after.left());
                let hold = (absent < candidates.absent).then_some(Hold::OverBudget);
                Removal { announced, absent, hold }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn left(live_rows: u64, removed_in_24h: u64) -> u64 {
        RemovalBudget::new(live_rows, removed_in_24h).left()
    }

    #[test]
    fn a_fifth_at_least_ten_at_most_a_thousand() {
        assert_eq!(left(1_000, 0), 200);
        assert_eq!(left(30, 0), 10);
        assert_eq!(left(1_000_000, 0), 1_000);
    }

    #[test]
    fn the_day_counts_together() {
        assert_eq!(left(900, 100), 100);
        assert_eq!(left(800, 200), 0);
        assert_eq!(left(10, 500), 0);
    }

    #[test]
    fn never_the_last_live_row() {
        assert_eq!(left(8, 0), 7);
        assert_eq!(left(1, 7), 0);
        assert_eq!(left(0, 0), 0);
    }

    #[test]
    fn absence_needs_a_control_that_answers() {
        let budget = RemovalBudget::new(100, 0);
        let absent = Candidates { announced: 0, absent: 25 };
        let held = |hold| Removal { announced: 0, absent: 0, hold: Some(hold) };
        assert_eq!(budget.decide(absent, Control::Unread), held(Hold::NeedsControl));
        assert_eq!(budget.decide(absent, Control::Absent), held(Hold::ViewLost));
        let over = Removal { announced: 0, absent: 20, hold: Some(Hold::OverBudget) };
        assert_eq!(budget.decide(absent, Control::Alive), over);
    }

    #[test]
    fn announced_deletes_spend_nothing_and_need_no_control() {
        let mut candidates = Candidates::default();
        (0..50).for_each(|_| candidates.add(Witness::AnnouncedAndConfirmed));
        let spent = RemovalBudget::new(50, 1_000);
        assert_eq!(spent.decide(candidates, Control::Unread), Removal { announced: 50, absent: 0, hold: None });
    }

    proptest! {
        #[test]
        fn however_it_is_asked_a_day_removes_no_more_than_its_budget(
            rows in 0_u64..20_000,
            asks in prop::collection::vec(0_u64..3_000, 0..40),
        ) {
            let (mut live, mut removed) = (rows, 0);
            for absent in asks {
                let now = RemovalBudget::new(live, removed).decide(Candidates { announced: 0, absent }, Control::Alive);
                live -= now.absent;
                removed += now.absent;
            }
            prop_assert!(removed <= (rows / 5).clamp(10, 1_000));
            prop_assert!(rows == 0 || live >= 1);
        }
    }
}
