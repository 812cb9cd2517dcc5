//! What a sweep misses while others write: from key to key no record that stood all the time; by links that count rows some, which
//! only the read of each keeps. The requests are the connector's, the server is made up here.

use std::collections::BTreeSet;

use super::*;
use crate::reconcile::suspects;

const RECORDS: u32 = 60;
const PAGE: usize = 7;
const SCHEDULES: u64 = 500;

fn named(n: u32) -> String {
    format!("K{n:04}")
}

/// A collection that others write to whenever a page of it was shown.
struct Server {
    /// It compares no keys, and leads on by links that count rows.
    by_links: bool,
    live: BTreeSet<String>,
    gone: BTreeSet<String>,
    /// Those that were never removed.
    standing: BTreeSet<String>,
    made: u32,
    random: u64,
}

impl Server {
    fn new(by_links: bool, seed: u64) -> Self {
        let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
        let live: BTreeSet<String> = (0..RECORDS).map(named).collect();
        Self { by_links, standing: live.clone(), live, gone: BTreeSet::new(), made: RECORDS, random }
    }

    fn below(&mut self, n: usize) -> usize {
        // Knuth's multiplier; the high bits are the good ones.
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.random >> 33).expect("31 bits") % n
    }

    fn answer(&mut self, url: &str) -> Response {
        let shown = self.show(url);
        for _ in 0..self.below(3) {
            self.write();
        }
        shown
    }

    fn show(&self, url: &str) -> Response {
        if let Some((_, rest)) = url.split_once("Property('") {
            let asked = rest.trim_end_matches("')");
            return if self.live.contains(asked) { answer(200, &format!(r#"{{"ListingKey":"{asked}"}}"#)) } else { answer(404, "{}") };
        }
        if self.by_links && pair(url, "$orderby").is_some() {
            return answer(400, "keys are not compared");
        }
        let above = pair(url, "$filter").map(|filter| filter.trim_start_matches("ListingKey gt ").trim_matches('\'').to_owned());
        let skip = pair(url, "$skip").map_or(0, |skip| skip.parse::<usize>().expect("a number"));
        let behind: Vec<&String> = self.live.iter().filter(|key| above.as_ref().is_none_or(|above| *key > above)).skip(skip).collect();
        let rows: Vec<String> = behind.iter().take(PAGE).map(|key| format!(r#"{{"ListingKey":"{key}"}}"#)).collect();
        let is_cut = self.by_links && behind.len() > PAGE;
        let link = if is_cut { format!(r#""@odata.nextLink":"Property?$skip={}","#, skip + PAGE) } else { String::new() };
        answer(200, &format!(r#"{{{link}"value":[{}]}}"#, rows.join(",")))
    }

    /// One is removed, comes back, or is made.
    fn write(&mut self) {
        let pick = |keys: &BTreeSet<String>, at: usize| keys.iter().nth(at).cloned();
        match self.below(4) {
            0 | 1 => {
                let at = self.below(self.live.len());
                let key = pick(&self.live, at).expect("below its length");
                self.live.remove(&key);
                self.standing.remove(&key);
                self.gone.insert(key);
            }
            2 if !self.gone.is_empty() => {
                let at = self.below(self.gone.len());
                let key = pick(&self.gone, at).expect("below its length");
                self.gone.remove(&key);
                self.live.insert(key);
            }
            _ => {
                self.live.insert(named(self.made));
                self.made += 1;
            }
        }
    }
}

/// What a sweep made of records that the server shows as it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lost {
    /// It did not meet them.
    missed: usize,
    /// And they had stood all the time.
    missed_standing: usize,
    /// They were removed, each after a read that did not find it.
    after_a_read: usize,
}

/// One sweep over a replica that was in step as it began.
fn sweep(by_links: bool, seed: u64) -> Lost {
    let (reso, mut server) = (reso(), Server::new(by_links, seed));
    let spec = resource(&reso, "Property");
    let rows: Vec<(Key, u64)> = server.live.iter().map(|name| (key(name), 1)).collect();
    let (mut seen, mut cursor) = (BTreeSet::new(), None);
    loop {
        let query = page(None, cursor.as_deref());
        let answer = server.answer(&reso.list(&spec, query).url);
        let page = reso.read(&spec, Asked::Page(query), &answer).expect("a page");
        seen.extend(page.records.into_iter().flatten().map(|record| record.key));
        match page.next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    let is_found = |key: &Key| {
        let keys = [key.clone()];
        let answer = server.show(&reso.fetch(&spec, &keys, By::Key).url);
        match reso.read(&spec, Asked::Keys(&keys, By::Key), &answer) {
            Ok(page) => page.records.len() == 1,
            Err(ReadError::NotFound) => false,
            Err(error) => panic!("{error}"),
        }
    };
    let suspects = suspects(&rows, &2, &seen);
    let live: Vec<&Key> = suspects.iter().filter(|key| server.live.contains(key.as_str())).collect();
    Lost {
        missed: live.len(),
        missed_standing: live.iter().filter(|key| server.standing.contains(key.as_str())).count(),
        after_a_read: live.iter().filter(|key| !is_found(key)).count(),
    }
}

fn sweeps(by_links: bool) -> Lost {
    (0..SCHEDULES).map(|seed| sweep(by_links, seed)).fold(Lost::default(), |sum, lost| Lost {
        missed: sum.missed + lost.missed,
        missed_standing: sum.missed_standing + lost.missed_standing,
        after_a_read: sum.after_a_read + lost.after_a_read,
    })
}

#[test]
fn what_a_sweep_misses_is_read_before_it_counts_as_gone() {
    let (by_keys, by_links) = (sweeps(false), sweeps(true));
    for (way, lost) in [("from key to key", by_keys), ("by links", by_links)] {
        println!(
            "{SCHEDULES} sweeps {way} over {RECORDS} records while others write: {} live records not met, {} of which had stood all the \
             time; removed {} unread, and {} if each is read",
            lost.missed, lost.missed_standing, lost.missed, lost.after_a_read
        );
    }
    assert_eq!(by_keys.missed_standing, 0, "from key to key nothing that stands is missed");
    assert!(by_links.missed_standing > 0 && by_keys.missed > 0, "the model is tame");
    assert_eq!((by_keys.after_a_read, by_links.after_a_read), (0, 0));
}
