//! What a sweep did not see, and whether to believe it.

use std::collections::BTreeSet;

/// How many candidates for removal are read by key before the rest: enough to tell an incomplete list from true deletes.
pub const SAMPLE: usize = 20;

/// Rows that the pass should have seen and did not: last touched before its first tick, and not among the seen. A row touched later
/// was read, pushed or revived meanwhile; its absence from earlier pages means nothing.
///
/// `rows` is a bounded batch of live rows as (key, tick); over the whole resource the same difference is one statement of the store.
pub fn suspects<K: Ord + Clone, T: Ord>(rows: &[(K, T)], first_tick: &T, seen: &BTreeSet<K>) -> Vec<K> {
    let suspect = |(key, tick): &&(K, T)| tick < first_tick && !seen.contains(key);
    rows.iter().filter(suspect).map(|(key, _)| key.clone()).collect()
}

/// Chooses up to [`SAMPLE`] different candidates; `random` is a uniformly random number drawn by the caller. Candidates in order of
/// their keys often share a parent, so the first twenty would be no sample.
pub fn sample<K: Clone>(candidates: &[K], random: u64) -> Vec<K> {
    let mut left: Vec<usize> = (0..candidates.len()).collect();
    let mut state = random;
    let mut chosen = Vec::with_capacity(SAMPLE.min(left.len()));
    while chosen.len() < SAMPLE && !left.is_empty() {
        // Knuth's multiplier; the high bits are the good ones.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let index = usize::try_from(state >> 33).unwrap_or(0) % left.len();
        chosen.push(candidates[left.swap_remove(index)].clone());
    }
    chosen
}

/// What a sample says about the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleVerdict {
    /// Most of them are gone: confirm the rest in bulk.
    Proceed,
    /// Most of them are alive: the *list* is incomplete. Stop and report; absence from it proves nothing.
    ListIncomplete,
    /// Fewer than half of them gave an answer: ask again later.
    Undecided,
}

/// Judges a sample of `asked` candidates, of which `alive` answered and `gone` were confirmed absent; the others gave no verdict.
#[must_use]
pub fn judge_sample(asked: usize, alive: usize, gone: usize) -> SampleVerdict {
    let answered = alive + gone;
    if answered == 0 || answered * 2 < asked {
        SampleVerdict::Undecided
    } else if alive * 2 > answered {
        SampleVerdict::ListIncomplete
    } else {
        SampleVerdict::Proceed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_rows_older_than_the_pass_and_unseen_are_suspect() {
        let rows = [("a", 1), ("b", 9), ("c", 10), ("d", 11)];
        assert_eq!(suspects(&rows, &10, &BTreeSet::from(["a"])), ["b"]);
    }

    #[test]
    fn most_alive_means_the_list_is_incomplete() {
        assert_eq!(judge_sample(20, 11, 9), SampleVerdict::ListIncomplete);
        assert_eq!(judge_sample(20, 10, 10), SampleVerdict::Proceed);
        assert_eq!(judge_sample(1, 1, 0), SampleVerdict::ListIncomplete);
        assert_eq!(judge_sample(20, 0, 9), SampleVerdict::Undecided);
        assert_eq!(judge_sample(0, 0, 0), SampleVerdict::Undecided);
    }

    proptest! {
        #[test]
        fn a_sample_holds_different_candidates_and_no_more_than_its_size(count in 0_usize..200, random: u64) {
            let candidates: Vec<usize> = (0..count).collect();
            let chosen = sample(&candidates, random);
            prop_assert_eq!(chosen.len(), count.min(SAMPLE));
            prop_assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), chosen.len());
        }
    }

    #[test]
    fn a_sample_is_spread_over_the_candidates() {
        let candidates: Vec<usize> = (0..10_000).collect();
        let chosen: BTreeSet<usize> = (0..20).flat_map(|draw| sample(&candidates, draw * 7_919)).collect();
        assert!(chosen.iter().filter(|key| **key >= 5_000).count() > 100 && chosen.len() > 300);
    }
}
