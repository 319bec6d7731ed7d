-- Instants that our types can hold: a row with another one could be read by no process.
alter table relay add constraint relay_instants check (
    least(created_at, updated_at, provisioned_at, retry_at, exhausted_at, confirm_at, lease_until, revived_at)
        >= '1970-01-01 00:00:00+00'::timestamptz
    and greatest(created_at, updated_at, provisioned_at, retry_at, exhausted_at, confirm_at, lease_until, revived_at)
        < '9999-12-31 00:00:00+00'::timestamptz) not valid;
