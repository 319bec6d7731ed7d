-- What a job is about, so that jobs are listed by relay and by upstream, and named in lists.

-- Returns `relay:<id>`, `lane:<id>`, `upstream:<id>`, `service:<id>` or `event:<id>` from the payload of a job;
-- null if it names none of these. Only the start of the payload is read, where the ids are.
create function job_subject(job bytea) returns text language plpgsql immutable parallel safe as $$
declare
    named constant text[] := regexp_match(
        encode(substring(job from 1 for 300), 'escape'),
        '"(relay_id|lane|upstream|service|event)": ?"([0-9a-f-]{1,64})"');
begin
    return case named[1] when 'relay_id' then 'relay' else named[1] end || ':' || named[2];
end $$;

-- Returns what a job does to its subject, or why it was enqueued: `update`, `lane`, `purge`; null if the payload
-- does not say so.
create function job_kind(job bytea) returns text language sql immutable parallel safe as $$
    select substring(encode(substring(job from 1 for 300), 'escape') from '"(?:job|cause)": ?"([a-z_]{1,32})"')
$$;

-- Returns whether the row of an ended job is the only record of work that was not done, so that deleting the row
-- would lose it: the events that a subscription received are stored nowhere else before their job is done. The work
-- of all other jobs is in the row of their subject, and a recurring job enqueues them again. Each wing adds its
-- queues here.
create function job_is_sole_record(queue text, status text) returns boolean
language sql immutable parallel safe as $$
    select queue = 'mirror-events' and status = 'Killed'
$$;
