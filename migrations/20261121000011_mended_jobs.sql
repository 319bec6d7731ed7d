-- A row of the queue may be written by hand, and then hold anything. A value that no statement of ours
-- writes would make a fetch fail, or a list, for all jobs. This trigger mends such a row as it is written:
-- one bad row is one killed job with a reason, and never more. The trigger has no WHEN clause, because
-- PostgreSQL parses and plans that for each statement (60 us); the first condition of the function costs
-- about 1 us.
--
-- Instants must lie between 1970 and 9999. Waiting jobs whose instant, count or status is not ours are
-- killed; other columns, and those of ended and of held jobs, get the nearest value of ours. The
-- priorities are those of `PRIORITIES` in `jobs/src/queue.rs`.

create function is_instant(at timestamptz) returns boolean language sql immutable parallel safe
return at >= timestamptz '1970-01-01 00:00:00+00' and at < timestamptz '9999-12-31 00:00:00+00';

create function mend_job() returns trigger language plpgsql as $$
declare
    reason text;
begin
    if new.status in ('Pending', 'Failed', 'Queued', 'Running', 'Done', 'Killed')
        and (new.done_at is null) <> (new.status in ('Done', 'Killed'))
        and (new.status <> 'Failed' or new.attempts < new.max_attempts)
        and new.attempts between 0 and 1000000 and new.max_attempts between 1 and 1000000
        and new.priority in (-5, 0, 5, 10)
        and is_instant(new.run_at)
        and (new.lock_at is null or is_instant(new.lock_at))
        and (new.done_at is null or is_instant(new.done_at))
        and (octet_length(new.job) <= 16777216 or new.status in ('Done', 'Killed'))
    then
        return new;
    end if;
    reason := case
        when new.status not in ('Pending', 'Failed', 'Queued', 'Running', 'Done', 'Killed')
            then format('unknown status %L', left(new.status, 100))
        when new.status in ('Done', 'Killed') then null
        when octet_length(new.job) > 16777216
            then format('the payload has %s bytes; at most 16 MiB are allowed', octet_length(new.job))
        when not is_instant(new.run_at) then format('cannot be due at %s', new.run_at)
        when new.attempts not between 0 and 1000000
            then format('cannot have made %s attempts', new.attempts)
        when new.status = 'Failed' and new.attempts >= new.max_attempts
            then format('no attempt is left: %s of %s were made', new.attempts, new.max_attempts)
        end;
    if reason is not null then
        new.status := 'Killed';
        new.done_at := now();
        new.last_result := jsonb_build_object('Err', 'malformed row: ' || reason);
        new.metadata := coalesce(hstore('key', new.idempotency_key), ''::hstore);
        new.idempotency_key := case when strpos(new.idempotency_key, '@') > 0 then new.idempotency_key end;
        new.lock_by := null;
    end if;
    new.attempts := least(greatest(new.attempts, 0), 1000000);
    new.max_attempts := least(greatest(new.max_attempts, 1), 1000000);
    new.priority := case when new.priority >= 10 then 10 when new.priority >= 5 then 5
                         when new.priority >= 0 then 0 else -5 end;
    if not is_instant(new.run_at) then
        new.run_at := now();
    end if;
    if not is_instant(new.lock_at) then
        new.lock_at := now();
    end if;
    if new.status in ('Done', 'Killed') then
        if new.done_at is null or not is_instant(new.done_at) then
            new.done_at := now();
        end if;
    else
        new.done_at := null;
    end if;
    return new;
end $$;

create trigger mend_job before insert or update on apalis.jobs
    for each row execute function mend_job();
