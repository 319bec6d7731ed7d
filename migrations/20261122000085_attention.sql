-- What needs an operator's attention: failures are grouped by cause, and an operator may snooze a group.

-- Returns the cause of a failure: its message without the names `own` of the thing that failed, ids, and
-- durations. Failures with one cause are shown as one line with their count.
create function cause_of(message text, own text[]) returns text language plpgsql immutable as $$
declare
    name text;
begin
    foreach name in array own loop
        if name <> '' then
            message := replace(message, name, '…');
        end if;
    end loop;
    message := regexp_replace(message, '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\m[0-9a-f]{16,}\M', '…', 'g');
    return left(regexp_replace(message, '\m\d+(\.\d+)? ?(ms|s|min|h)\M', '…', 'g'), 300);
end $$;

-- Returns whether the row of a killed job's subject shows its own state, so that the job is not reported
-- beside it. `key` is the key of the job. Each wing adds the keys of its jobs here.
create function is_reported(key text) returns boolean language sql stable as $$
    select key like 'relay:%' and exists (select from relay where id = substr(key, 7));
$$;

-- When the last run that succeeded ended. A killed run from before needs no attention: each run does all of the
-- work.
alter table recurring_job add column last_succeeded_at timestamptz;
update recurring_job set last_succeeded_at = last_ended_at where last_error is null;
alter table recurring_job add constraint recurring_job_success check (coalesce(is_instant(last_succeeded_at), true)) not valid;

-- Returns whether a killed job that ended at `killed_at` needs attention of its own: no operator has seen it,
-- its subject has not succeeded since, no later run of the recurring job has, and no row of its subject is
-- reported. The key of a run is `name@instant`.
create function killed_is_open(metadata hstore, killed_at timestamptz) returns boolean language sql stable as $$
    select not coalesce(exist(metadata, 'seen'), false)
       and not is_settled(metadata->'key') is true
       and not is_reported(metadata->'key') is true
       and not exists (select from recurring_job
                       where name = split_part(metadata->'key', '@', 1) and strpos(metadata->'key', '@') > 0
                         and last_succeeded_at > killed_at);
$$;

-- Items that an operator has put aside. `key` names the item as in src/fleet/attention.rs.
create table attention_snooze (
    key text primary key check (length(key) between 1 and 400),
    reason text not null check (length(reason) between 1 and 300),
    -- who snoozed it: as in operator_action
    who text not null,
    -- how many things the item counted; if it counts more, it is listed again
    size bigint not null check (size > 0),
    created_at timestamptz not null default now(),
    ends_at timestamptz not null check (ends_at > created_at)
);

-- Returns the lanes of enabled upstreams that failed and have not succeeded since, or whose holder has sent
-- no heartbeat for `stale_secs`, each with its cause; at most `most`, the last failures first.
create function troubled_lane(stale_secs float8, most bigint)
returns table (id uuid, upstream_id uuid, url text, lane text, since timestamptz, error text, cause text)
language sql stable as $$
    select l.id, u.id, u.url::text, l.lane::text, coalesce(l.failed_at, l.last_error_at, l.heartbeat_at),
           coalesce(l.last_error, l.error_message, ''),
           case when l.last_error is null and l.error_message is null then ''
                else cause_of(coalesce(l.last_error, l.error_message),
                              array[u.url, split_part(split_part(u.url, '://', 2), '/', 1)]) end
    from lane l join upstream u on u.id = l.upstream_id
    where l.retired_at is null and u.enabled
      and (l.status = 'error' or l.consecutive_failures > 0
           or (l.status = 'syncing' and l.heartbeat_at < now() - make_interval(secs => stale_secs)))
    order by coalesce(l.failed_at, l.last_error_at, l.heartbeat_at) desc nulls last, l.id
    limit most
$$;
