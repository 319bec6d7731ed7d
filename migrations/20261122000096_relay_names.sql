-- What people search relays by, beside the relays: an index on `relay` itself would make every sync dearer.
create extension if not exists pg_trgm;
create table relay_name (
    relay_id text primary key,
    -- host and name in lower case
    name text not null
);

create function relay_name_of(relay relay) returns text language sql immutable parallel safe as $$
    select lower(relay.subdomain || '.' || relay.zooid_domain || ' ' || relay.info_name)
$$;

create function keep_relay_name() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' then
        delete from relay_name where relay_id = old.id;
        return null;
    end if;
    insert into relay_name (relay_id, name) values (new.id, relay_name_of(new))
    on conflict (relay_id) do update set name = excluded.name where relay_name.name <> excluded.name;
    return null;
end $$;
create trigger relay_name_kept after insert or delete or update of subdomain, zooid_domain, info_name on relay
    for each row execute function keep_relay_name();
