-- How often a job's worker died while the job ran: `crashes` in the row's metadata. A row may hold
-- anything, so a value that is no small number counts as 0.
create function crashes_of(metadata hstore) returns integer language sql immutable parallel safe
return case when metadata->'crashes' ~ '^[0-9]{1,9}$' then (metadata->'crashes')::integer else 0 end;

-- The part of the metadata that holds this count; empty if it is 0.
create function crashes_as(crashes integer) returns hstore language sql immutable parallel safe
return case when crashes > 0 then hstore('crashes', crashes::text) else ''::hstore end;
