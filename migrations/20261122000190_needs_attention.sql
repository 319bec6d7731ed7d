-- Returns one row if a killed job that ended at `killed_at` needs attention of its own: no operator has seen it,
-- no row of its subject shows its own state instead, and no later run of the recurring job has succeeded. Each wing
-- adds the keys of its jobs; the key of a run is `name@instant`.
--
-- It returns rows instead of a truth value because PostgreSQL then makes it a part of the statement. A call with the
-- statements in it took 20 to 60 microseconds, as part of the statement it takes one.
create function needs_attention(metadata hstore, killed_at timestamptz) returns setof boolean language sql stable as $$
    select true
    where not coalesce(exist(metadata, 'seen'), false)
      and not exists (select from relay where metadata->'key' like 'relay:%' and id = substr(metadata->'key', 7))
      and not exists (select from recurring_job
                      where name = split_part(metadata->'key', '@', 1) and strpos(metadata->'key', '@') > 0
                        and last_succeeded_at > killed_at)
$$;

-- Processes of the release before call it.
create or replace function killed_is_open(metadata hstore, killed_at timestamptz) returns boolean language sql stable as $$
    select exists (select from needs_attention(metadata, killed_at))
$$;

-- A relay that is in step is reported by its row, too.
drop function is_settled(text);
drop function is_reported(text);
