//! Answers at the door, counted per minute, source and status.

use sea_orm::ConnectionTrait;
use sea_orm::sea_query::{Expr, ExprTrait, OnConflict, Query};

use crate::clock::Timestamp;
use crate::model::SourceName;
use crate::store::connect::{Lane, Store};
use crate::store::error::Error;
use crate::store::sql::groups;

/// How often a status was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerCount {
    /// Any instant of the minute.
    pub at: Timestamp,
    /// To whom; only configured sources are counted, so that strangers cannot fill the table.
    pub source: SourceName,
    /// HTTP status.
    pub status: u16,
    /// How often.
    pub n: u64,
}

const MINUTE: i64 = 60_000_000;

impl Store {
    /// Adds to the counts.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`]: nothing was added.
    pub async fn count_answers(&self, counts: &[AnswerCount]) -> Result<(), Error> {
        let mut folded = std::collections::BTreeMap::new();
        for count in counts {
            let minute = count.at.0.div_euclid(MINUTE) * MINUTE;
            *folded.entry((minute, count.source.as_str(), i64::from(count.status))).or_insert(0_u64) += count.n;
        }
        let rows: Vec<_> = folded.into_iter().collect();
        self.run(|| async {
            // The journal writes them, and deliveries wait behind it.
            let tx = self.begin(Lane::Journal, "answers").await?;
            for group in groups(&rows) {
                let mut insert = Query::insert();
                insert.into_table("instep_answer").columns(["minute", "source", "status", "n"]);
                for ((minute, source, status), n) in group {
                    let n = i64::try_from(*n).unwrap_or(i64::MAX);
                    insert.values_panic([(*minute).into(), (*source).into(), (*status).into(), n.into()]);
                }
                let sum = Expr::col(("instep_answer", "n")).add(Expr::col(("excluded", "n")));
                insert.on_conflict(OnConflict::columns(["minute", "source", "status"]).value("n", sum).to_owned());
                tx.db.execute(&insert).await?;
            }
            tx.commit().await
        })
        .await
    }
}
