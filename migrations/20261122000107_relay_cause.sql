-- Why a relay gave up: what its error has in common with those of others, so that relays are grouped and found by
-- cause. A trigger writes it when a relay gives up: a generated column would rewrite the table, and would compute
-- the cause at each settle. It keeps its value while the relay is not given up.
alter table relay add column cause text collate "C";

create function keep_cause() returns trigger language plpgsql as $$
begin
    new.cause := cause_of(new.sync_error, array[new.subdomain || '.' || new.zooid_domain]);
    return new;
end $$;
create trigger relay_cause before insert or update of sync_error, exhausted_at on relay
    for each row when (new.exhausted_at is not null) execute function keep_cause();
