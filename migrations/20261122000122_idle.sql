-- A process without work asks the database seldom; see docs/adr/0026-one-poll-per-process.md.

-- Whether the upkeep of a wing has something to do. Each wing adds its condition. A process asks with each look for
-- jobs of dead workers.
create function upkeep_is_due() returns boolean language sql stable parallel safe as $$
    -- A job is held for an instance or for a host, or a relay gave up in an outage.
    select exists (select from apalis.jobs where metadata->'held_by' is not null)
        or exists (select from relay where outage_instance is not null);
$$;
