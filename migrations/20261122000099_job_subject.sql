-- What a job is about, so that jobs are listed by relay and by upstream, and named in lists.

-- Returns the text that follows `member` in JSON without spaces, up to the next quotation mark; null if there is none.
create function json_text(json text, member text) returns text language sql immutable parallel safe as $$
    select nullif(left(split_part(split_part(json, member, 2), '"', 1), 64), '')
$$;

-- Returns `relay:<id>`, `lane:<id>`, `upstream:<id>`, `service:<id>` or `event:<id>` from the payload of a job;
-- null if it names none of these. Only the start of the payload is read, where the ids are. An index calls this at
-- the end of every job, so it compares text: a regular expression costs a hundred times as much.
create function job_subject(job bytea) returns text language plpgsql immutable parallel safe as $$
declare
    head constant text := encode(substring(job from 1 for 200), 'escape');
begin
    return case
        when strpos(head, '"relay_id":"') > 0 then 'relay:' || json_text(head, '"relay_id":"')
        when strpos(head, '"upstream":"') > 0 then 'upstream:' || json_text(head, '"upstream":"')
        when strpos(head, '"lane":"') > 0 then 'lane:' || json_text(head, '"lane":"')
        when strpos(head, '"service":"') > 0 then 'service:' || json_text(head, '"service":"')
        when strpos(head, '"event":"') > 0 then 'event:' || json_text(head, '"event":"') end;
end $$;

-- Returns what a job does to its subject, or why it was enqueued: `update`, `lane`, `purge`; null if the payload
-- does not say so.
create function job_kind(job bytea) returns text language plpgsql immutable parallel safe as $$
declare
    head constant text := encode(substring(job from 1 for 200), 'escape');
begin
    return coalesce(json_text(head, '"job":"'), json_text(head, '"cause":"'));
end $$;

-- Returns whether the row of an ended job is the only record of work that was not done, so that deleting the row
-- would lose it: the events that a subscription received are stored nowhere else before their job is done. The work
-- of all other jobs is in the row of their subject, and a recurring job enqueues them again. Each wing adds its
-- queues here.
create function job_is_sole_record(queue text, status text) returns boolean
language sql immutable parallel safe as $$
    select queue = 'mirror-events' and status = 'Killed'
$$;
