-- Why a relay gave up: what its error has in common with those of others, so that relays are grouped and found by
-- cause. A trigger writes it when a relay gives up: a generated column would rewrite the table, and would compute
-- the cause at each settle. It keeps its value while the relay is not given up.
alter table relay add column cause text collate "C";

create function keep_cause() returns trigger language plpgsql as $$
begin
    if new.exhausted_at is not null then
        new.cause := cause_of(new.sync_error, array[new.subdomain || '.' || new.zooid_domain]);
    end if;
    return new;
end $$;
-- Without a WHEN clause, which PostgreSQL parses and plans for each statement (60 us).
create trigger relay_cause before insert or update of sync_error, exhausted_at on relay
    for each row execute function keep_cause();
