//! The filters that a followed relay would be asked for next.

use serde::Serialize;
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use crate::grasp::{
    coverage::filters::{self, Bounds},
    family::Family,
};

/// The most items of a family that are planned here.
const MOST_ITEMS: i64 = 1000;

/// A batch that would be fetched.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedBatch {
    /// The family of its items.
    pub family: Family,
    /// The number of its items.
    pub items: usize,
    /// Failed attempts of each of its items.
    pub attempts: i32,
    /// The filters, as a `REQ` carries them.
    pub filters: Vec<Value>,
    /// Items that no filter can name, each with the reason.
    pub unusable: Vec<(String, String)>,
}

/// Returns the batches that would be fetched from a followed relay now, in their order, without fetching
/// them; of each family at most those of the first 1,000 due items.
pub async fn plan(db: &PgPool, relay: Uuid) -> Result<Vec<PlannedBatch>, sqlx::Error> {
    let information = sqlx::query_scalar!(
        "select u.information from grasp_relay r join upstream u on u.id = r.upstream_id where r.id = $1",
        relay,
    );
    let information = information.fetch_optional(db).await?.flatten();
    let bounds = Bounds::of(information.as_ref());
    let families: Vec<String> = Family::ALL.iter().map(ToString::to_string).collect();
    let rows = sqlx::query!(
        r#"select f.family as "family!", c.item as "item!", c.attempts as "attempts!",
                  c.batch_size as "batch_size!"
           from unnest($2::text[]) with ordinality as f (family, rank), lateral (
               select c.item, c.attempts, c.batch_size from grasp_coverage c
               where c.relay_id = $1 and c.family = f.family and c.state = 'missing' and c.retry_at <= now()
               order by c.attempts, c.item limit $3) c
           order by f.rank, c.attempts, c.item"#,
        relay,
        &families,
        MOST_ITEMS,
    )
    .fetch_all(db)
    .await?;
    let items = rows.into_iter().filter_map(|row| {
        Some((Family::parse(&row.family)?, (row.attempts, row.batch_size), row.item))
    });
    Ok(batches(items).iter().map(|batch| planned(batch, bounds)).collect())
}

/// Items of one family with the same number of failed attempts, which are fetched in batches of the same size.
struct Together {
    family: Family,
    attempts: i32,
    most: i32,
    items: Vec<String>,
}

/// Puts items together as [`coverage::plan`](crate::grasp::coverage::plan) does: 100 of a family, or half
/// of the batch that failed.
fn batches(items: impl Iterator<Item = (Family, (i32, i32), String)>) -> Vec<Together> {
    let mut all: Vec<Together> = Vec::new();
    for (family, (attempts, most), item) in items {
        let room = usize::try_from(most).unwrap_or(1).max(1);
        match all.last_mut() {
            Some(last)
                if (last.family, last.attempts, last.most) == (family, attempts, most)
                    && last.items.len() < room =>
            {
                last.items.push(item);
            }
            _ => all.push(Together { family, attempts, most, items: vec![item] }),
        }
    }
    all
}

fn planned(batch: &Together, bounds: Bounds) -> PlannedBatch {
    let filters = filters::of(batch.family, &batch.items, bounds);
    PlannedBatch {
        family: batch.family,
        items: batch.items.len(),
        attempts: batch.attempts,
        filters: filters.filters.iter().map(|filter| Value::Object(filter.to_json())).collect(),
        unusable: filters.unusable.into_iter().map(|one| (one.item, one.reason)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_that_failed_go_apart_and_fewer_together() {
        let fresh = (0..150).map(|n| (Family::Address, (0, 100), n.to_string()));
        let failed = (0..60).map(|n| (Family::Address, (1, 50), n.to_string()));
        let roots = std::iter::once((Family::Root, (9, 1), "x".to_owned()));
        let sizes: Vec<_> = batches(fresh.chain(failed).chain(roots))
            .iter()
            .map(|batch| (batch.family, batch.items.len()))
            .collect();
        let address = |size| (Family::Address, size);
        let wanted = [address(100), address(50), address(50), address(10), (Family::Root, 1)];
        assert_eq!(sizes, wanted);
    }
}
