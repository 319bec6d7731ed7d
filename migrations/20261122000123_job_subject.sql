-- With the schema of `json_text`: a restored dump builds the indexes of this function without a search path, and so does
-- PostgreSQL 17 whenever it analyses the table.
create or replace function job_subject(job bytea) returns text language plpgsql immutable parallel safe as $$
declare
    head constant text := encode(substring(job from 1 for 200), 'escape');
begin
    return case
        when strpos(head, '"relay_id":"') > 0 then 'relay:' || public.json_text(head, '"relay_id":"')
        when strpos(head, '"upstream":"') > 0 then 'upstream:' || public.json_text(head, '"upstream":"')
        when strpos(head, '"lane":"') > 0 then 'lane:' || public.json_text(head, '"lane":"')
        when strpos(head, '"service":"') > 0 then 'service:' || public.json_text(head, '"service":"')
        when strpos(head, '"event":"') > 0 then 'event:' || public.json_text(head, '"event":"') end;
end $$;
