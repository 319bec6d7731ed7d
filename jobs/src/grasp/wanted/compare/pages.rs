//! The pages that a comparison reads.

use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use super::{Comparison, ITEMS, Item, Named, REPOSITORIES};
use crate::{grasp::admission, mirror::event::column};

impl Comparison<'_> {
    /// Begins a transaction that reads a page. Its plans must not read tables.
    async fn reads(&self) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        let mut tx = crate::database::begin(self.db).await?;
        admission::look_up_only(&mut tx).await?;
        Ok(tx)
    }

    /// Returns a page of the repositories that name the relay, after this one.
    pub(super) async fn named(
        &self,
        service: Uuid,
        address: &str,
    ) -> Result<Vec<Named>, sqlx::Error> {
        let named = sqlx::query_as!(
            Named,
            r#"select w.upstream_id as "service!", w.address as "address!", r.identifier as "identifier!"
               from grasp_repo_relay w
               cross join lateral (
                   select r.identifier from grasp_repo r
                   where r.upstream_id = w.upstream_id and r.address = w.address and r.left_at is null offset 0) r
               where w.url = $1 and (w.upstream_id, w.address) > ($2, $3)
                 and (select s.enabled and s.removing_at is null from grasp_service s
                      where s.upstream_id = w.upstream_id)
               order by w.upstream_id, w.address limit $4"#,
            self.url,
            service,
            address,
            REPOSITORIES,
        );
        named.fetch_all(&mut *self.reads().await?).await
    }

    /// Returns what these repositories want from the relay, and what it is asked for in any case, as far as it has no row.
    pub(super) async fn missing(
        &self,
        page: &[Named],
        after: &Item,
    ) -> Result<Vec<Item>, sqlx::Error> {
        let rows = sqlx::query!(
            r#"with named as (
                   select * from unnest($3::uuid[], $4::text[], $5::text[]) n (service, address, identifier)
               ), wanted (family, item) as (
                   select 'announcements', '*' where grasp_wants($2, 'announcements', '*')
                   union select 'state', identifier from named
                   union select 'address', address from named
                   union select 'root', encode(o.event_id, 'hex')
                         from named cross join lateral (
                             select o.event_id from grasp_root o
                             where o.upstream_id = named.service and o.address = named.address offset 0) o
                   union select 'deletion', encode(a.pubkey, 'hex')
                         from named cross join lateral (
                             select a.pubkey from grasp_author a
                             where a.upstream_id = named.service and a.address = named.address offset 0) a
               )
               select family as "family!", item as "item!" from wanted w
               where (family, item) > ($6, $7)
                 and (select true from grasp_coverage c
                      where c.relay_id = $1 and c.family = w.family and c.item = w.item) is null
               order by family, item limit $8"#,
            self.relay,
            self.url,
            &column(page, |named| named.service),
            &column(page, |named| named.address.clone()),
            &column(page, |named| named.identifier.clone()),
            after.0,
            after.1,
            ITEMS,
        );
        let rows = rows.fetch_all(&mut *self.reads().await?).await?;
        Ok(rows.into_iter().map(|row| (row.family, row.item)).collect())
    }

    /// Returns a page of the coverage after this item, and whether anything wants each.
    pub(super) async fn coverage(&self, after: &Item) -> Result<Vec<(Item, bool)>, sqlx::Error> {
        let page = sqlx::query!(
            r#"select family, item, grasp_wants($2, family, item) as "is_wanted!"
               from grasp_coverage where relay_id = $1 and (family, item) > ($3, $4)
               order by family, item limit $5"#,
            self.relay,
            self.url,
            after.0,
            after.1,
            ITEMS,
        );
        let page = page.fetch_all(&mut *self.reads().await?).await?;
        Ok(page.into_iter().map(|row| ((row.family, row.item), row.is_wanted)).collect())
    }
}
