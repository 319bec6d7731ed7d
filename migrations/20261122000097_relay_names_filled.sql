-- The relays that exist. The trigger writes the names of those that are created or change meanwhile.
insert into relay_name (relay_id, name) select r.id, relay_name_of(r) from relay r
on conflict (relay_id) do nothing;
