//! Where an instance is at home: the host that it runs on, and under which public address its registrations were made.
//!
//! A database that was copied remembers another home than the one it is opened in. Its registrations are another's then, who may still
//! be there; and the numbers of its changes may have been given out twice, so its generation is another.

use sea_orm::sea_query::{Expr, ExprTrait, OnConflict, Query};
use sea_orm::{ConnectionTrait, FromQueryResult, Value};

use crate::model::SourceName;
use crate::store::connect::{Lane, Store, Tx};
use crate::store::error::Error;
use crate::store::gaps;

/// The cause of a gap: the database is older than what this instance, or another, has had in it. Only a sweep repairs it: what was removed
/// since is told by nothing any more.
pub const RESTORED: &str = "restored";

/// How far a source had come.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Reached {
    /// Which source.
    pub source: String,
    /// The incarnation of its owner.
    pub epoch: i64,
    /// The number that its next change would have had.
    pub next_change: i64,
}

/// What a start found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// The database is a copy of another host's, or an older one than was here: readers of its changes have to start again.
    pub is_restored: bool,
    /// Sources that are at home elsewhere, and why.
    pub strange: Vec<(SourceName, String)>,
}

#[derive(FromQueryResult)]
struct HomeRow {
    host: String,
    public_url: String,
}

impl Store {
    /// Compares the database with the place where it is opened: `host` names that, `reached` is how far it had come here, and every source
    /// has its public address. Sources that were at home nowhere are at home here from now on.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn arrive(&self, host: &str, reached: &[Reached], sources: &[(&SourceName, &str)]) -> Result<Arrival, Error> {
        self.run(|| self.arrive_once(host, reached, sources)).await
    }

    async fn arrive_once(&self, host: &str, reached: &[Reached], sources: &[(&SourceName, &str)]) -> Result<Arrival, Error> {
        let tx = self.begin(Lane::Work, "arrive").await?;
        let mut arrival = Arrival { is_restored: self.is_restored(&tx, host, reached).await?, ..Arrival::default() };
        if arrival.is_restored {
            let beat = Query::select().column("at").from("instep_heartbeat").and_where(Expr::col("name").eq("journal")).take();
            let beat: Option<i64> = tx.db.query_one(&beat).await?.map(|row| row.try_get("", "at")).transpose()?;
            let now = self.now().0;
            let names = Query::select().column("name").from("instep_source").take();
            for row in tx.db.query_all(&names).await? {
                let name: String = row.try_get("", "name")?;
                if let Ok(source) = SourceName::new(name) {
                    gaps::extend(&tx, &source, RESTORED, Ord::min(beat.unwrap_or(now), now), Some(now)).await?;
                }
            }
            set_instance(&tx, "generation", uuid::Uuid::now_v7().to_string()).await?;
        }
        set_instance(&tx, "host", host.to_owned()).await?;
        for (source, public_url) in sources {
            match home(&tx, source).await? {
                None => put(&tx, source, host, public_url, self.now().0).await?,
                Some(home) => arrival.strange.extend(strangeness(&home, host, public_url).map(|why| ((*source).clone(), why))),
            }
        }
        tx.commit().await?;
        Ok(arrival)
    }

    async fn is_restored(&self, tx: &Tx<'_>, host: &str, reached: &[Reached]) -> Result<bool, Error> {
        let known = Query::select().column("host").from("instep_instance").take();
        let known: Option<String> = tx.db.query_one(&known).await?.map(|row| row.try_get("", "host")).transpose()?.flatten();
        if known.is_some_and(|known| known != host) {
            return Ok(true);
        }
        for before in reached {
            let select = Query::select()
                .columns(["epoch", "next_change"])
                .from("instep_source")
                .and_where(Expr::col("name").eq(before.source.as_str()))
                .take();
            let Some(row) = tx.db.query_one(&select).await? else { continue };
            let (epoch, next_change): (i64, i64) = (row.try_get("", "epoch")?, row.try_get("", "next_change")?);
            if epoch < before.epoch || next_change < before.next_change {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// This is the home of a source from now on.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn adopt(&self, source: &SourceName, host: &str, public_url: &str) -> Result<(), Error> {
        self.run(|| async {
            let tx = self.begin(Lane::Work, "adopt").await?;
            put(&tx, source, host, public_url, self.now().0).await?;
            tx.commit().await
        })
        .await
    }

    /// How far every source has come.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn reached(&self) -> Result<Vec<Reached>, Error> {
        let mut select = Query::select();
        select.columns(["name", "epoch", "next_change"]).from("instep_source");
        let row = |row: &sea_orm::QueryResult| -> Result<Reached, Error> {
            Ok(Reached { source: row.try_get("", "name")?, epoch: row.try_get("", "epoch")?, next_change: row.try_get("", "next_change")? })
        };
        self.reader().query_all(&select).await?.iter().map(row).collect()
    }

    /// The name that registrations carry, so that people see whose they are.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn instance_name(&self) -> Result<String, Error> {
        let select = Query::select().column("name").from("instep_instance").take();
        let row = self.reader().query_one(&select).await?;
        Ok(row.map(|row| row.try_get::<Option<String>>("", "name")).transpose()?.flatten().unwrap_or_default())
    }
}

fn strangeness(home: &HomeRow, host: &str, public_url: &str) -> Option<String> {
    if home.public_url != public_url {
        return Some(format!("its registrations were made for {}, and public_url is now {public_url}", home.public_url));
    }
    (home.host != host).then(|| "its registrations were made by an instance on another host, or with another state directory".to_owned())
}

async fn home(tx: &Tx<'_>, source: &SourceName) -> Result<Option<HomeRow>, Error> {
    let select =
        Query::select().columns(["host", "public_url"]).from("instep_home").and_where(Expr::col("source").eq(source.as_str())).take();
    Ok(tx.db.query_one(&select).await?.map(|row| HomeRow::from_query_result(&row, "")).transpose()?)
}

async fn put(tx: &Tx<'_>, source: &SourceName, host: &str, public_url: &str, now: i64) -> Result<(), Error> {
    let values: [Value; 4] = [source.as_str().into(), host.into(), public_url.into(), now.into()];
    let insert = Query::insert()
        .into_table("instep_home")
        .columns(["source", "host", "public_url", "at"])
        .values_panic(values.into_iter().map(Expr::val))
        .on_conflict(OnConflict::column("source").update_columns(["host", "public_url", "at"]).to_owned())
        .take();
    tx.db.execute(&insert).await?;
    Ok(())
}

async fn set_instance(tx: &Tx<'_>, column: &'static str, value: String) -> Result<(), Error> {
    let update = Query::update().table("instep_instance").value(column, value).take();
    tx.db.execute(&update).await?;
    Ok(())
}
