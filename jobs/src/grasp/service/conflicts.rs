//! What two services cannot have at once, and what a service cannot be to itself. It is checked in the
//! transaction that writes the fields, under the lock of admission, so that no other one comes between.

use sqlx::PgConnection;
use uuid::Uuid;

use super::ServiceError;
use crate::grasp::address::host_of;

/// Returns why the fields of a service, as they are written now, are refused.
pub(super) async fn refuse(
    tx: &mut PgConnection,
    id: Uuid,
) -> Result<Result<(), ServiceError>, sqlx::Error> {
    let mut problems = taken_names(tx, id).await?;
    problems.extend(own_bootstrap(tx, id).await?);
    Ok(if problems.is_empty() { Ok(()) } else { Err(ServiceError::Invalid(problems)) })
}

/// The names of the service that another one has. An announcement that names them would mean both.
async fn taken_names(tx: &mut PgConnection, id: Uuid) -> Result<Vec<String>, sqlx::Error> {
    let taken = sqlx::query!(
        r#"select name as "name!", u.url
           from grasp_service own cross join unnest(own.names) name
           join grasp_service other on other.upstream_id <> own.upstream_id and other.removing_at is null
               and name = any(other.names)
           join upstream u on u.id = other.upstream_id
           where own.upstream_id = $1 order by name, u.url limit 20"#,
        id,
    );
    let problem = |name: &str, url: &str| {
        format!(
            "Name {name} belongs to the service {url}: announcements that name it would mean both. Give \
             this service another one (`--name`)"
        )
    };
    let taken = taken.fetch_all(tx).await?;
    Ok(taken.iter().map(|row| problem(&row.name, &row.url)).collect())
}

/// The bootstrap relays that are the service's own relay.
async fn own_bootstrap(tx: &mut PgConnection, id: Uuid) -> Result<Vec<String>, sqlx::Error> {
    let rows = sqlx::query!(
        "select s.names, u.url, b.url as bootstrap
         from grasp_service s join upstream u on u.id = s.upstream_id
         join grasp_bootstrap b on b.upstream_id = s.upstream_id
         where s.upstream_id = $1 order by b.url",
        id,
    );
    let rows = rows.fetch_all(tx).await?;
    let is_own = |host: &String, names: &[String], url: &str| {
        names.contains(host) || host_of(url).as_ref() == Some(host)
    };
    let own = rows.iter().filter(|row| {
        host_of(&row.bootstrap).is_some_and(|host| is_own(&host, &row.names, &row.url))
    });
    let problem = |url: &str| {
        format!("Bootstrap {url} is the service's own relay, whose events it has anyway")
    };
    Ok(own.map(|row| problem(&row.bootstrap)).collect())
}
