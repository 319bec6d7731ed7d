//! The statements that write a relay's wanted state.

use sqlx::PgConnection;

use super::{MutationError, NewRelay, Relay, RelayId, Status, Wanted, relay_query};

/// Locks a relay's row until the transaction ends.
pub(super) async fn lock(tx: &mut PgConnection, id: &RelayId) -> Result<Relay, MutationError> {
    let row = relay_query!("", "from relay where id = $1 for update", id.as_str())
        .fetch_optional(tx)
        .await?;
    row.map(Relay::from).ok_or_else(|| MutationError::NotFound(id.clone()))
}

/// `relay_query!` whose first parameters are the id and the wanted state: `$1` is the id, `$2` to `$8` are
/// the texts and `$9` to `$18` the flags, in the order of the table.
macro_rules! wanted_query {
    ($head:literal, $id:expr, $wanted:expr $(, $more:expr)*) => {
        relay_query!(
            $head,
            "from relay",
            $id.as_str(),
            $wanted.subdomain,
            $wanted.zooid_domain,
            $wanted.plan_id,
            $wanted.info_name,
            $wanted.info_icon,
            $wanted.info_description,
            $wanted.custom_domain,
            $wanted.flags.policy_public_read,
            $wanted.flags.policy_public_write,
            $wanted.flags.policy_public_join,
            $wanted.flags.policy_strip_signatures,
            $wanted.flags.groups_enabled,
            $wanted.flags.management_enabled,
            $wanted.flags.members_can_invite,
            $wanted.flags.blossom_enabled,
            $wanted.flags.livekit_enabled,
            $wanted.flags.push_enabled
            $(, $more)*
        )
    };
}

/// Inserts a relay with a new id.
pub(super) async fn insert(tx: &mut PgConnection, new: &NewRelay) -> Result<Relay, sqlx::Error> {
    let id = RelayId::random();
    let wanted = &new.wanted;
    let row = wanted_query!(
        "with relay as (
            insert into relay (
                id, subdomain, zooid_domain, plan_id, info_name, info_icon, info_description,
                custom_domain, policy_public_read, policy_public_write, policy_public_join,
                policy_strip_signatures, groups_enabled, management_enabled, members_can_invite,
                blossom_enabled, livekit_enabled, push_enabled, tenant_pubkey, schema)
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17,
                    $18, $19, $20)
            returning *)",
        id,
        wanted,
        new.tenant_pubkey,
        schema_name(&wanted.subdomain, &id)
    )
    .fetch_one(tx)
    .await?;
    Ok(row.into())
}

/// Writes the wanted state as the relay's next generation.
pub(super) async fn write(
    tx: &mut PgConnection,
    id: &RelayId,
    wanted: &Wanted,
) -> Result<Relay, sqlx::Error> {
    let row = wanted_query!(
        "with relay as (
            update relay set
                subdomain = $2, zooid_domain = $3, plan_id = $4, info_name = $5, info_icon = $6,
                info_description = $7, custom_domain = $8,
                custom_domain_verified = custom_domain_verified and custom_domain = $8,
                policy_public_read = $9, policy_public_write = $10, policy_public_join = $11,
                policy_strip_signatures = $12, groups_enabled = $13, management_enabled = $14,
                members_can_invite = $15, blossom_enabled = $16, livekit_enabled = $17,
                push_enabled = $18,
                generation = generation + 1
            where id = $1
            returning *)",
        id,
        wanted
    )
    .fetch_one(tx)
    .await?;
    Ok(row.into())
}

/// Starts the relay's next generation with `status`; other columns keep their values.
pub(super) async fn next_generation(
    tx: &mut PgConnection,
    id: &RelayId,
    status: Status,
) -> Result<Relay, sqlx::Error> {
    let row = relay_query!(
        "with relay as (
            update relay set
                status = $2,
                generation = generation + 1
            where id = $1
            returning *)",
        "from relay",
        id.as_str(),
        status.as_str(),
    )
    .fetch_one(tx)
    .await?;
    Ok(row.into())
}

/// The wanted state of a row.
pub(super) fn wanted_of(relay: &Relay) -> Wanted {
    Wanted {
        subdomain: relay.subdomain.clone(),
        zooid_domain: relay.zooid_domain.clone(),
        plan_id: relay.plan_id.clone(),
        info_name: relay.info_name.clone(),
        info_icon: relay.info_icon.clone(),
        info_description: relay.info_description.clone(),
        custom_domain: relay.custom_domain.clone(),
        flags: relay.flags,
    }
}

/// Returns a SQLite identifier that no other relay has: `my-relay` → `my_relay_0b6d9f0e`.
fn schema_name(subdomain: &str, id: &RelayId) -> String {
    let stem = subdomain.replace('-', "_");
    let digits = &id.as_str()[..8];
    let underscore = if stem.starts_with(|first: char| first.is_ascii_digit()) { "_" } else { "" };
    format!("{underscore}{stem}_{digits}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_an_identifier_made_of_subdomain_and_id() {
        let id: RelayId = "0b6d9f0e-5b1c-4c7e-9b43-1c1f6b8f2a10".parse().expect("a UUID");
        assert_eq!(schema_name("my-relay", &id), "my_relay_0b6d9f0e");
        assert_eq!(schema_name("4chan", &id), "_4chan_0b6d9f0e");
    }
}
