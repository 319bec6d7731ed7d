-- The relays that gave up before. The trigger writes the cause.
update relay set sync_error = sync_error where exhausted_at is not null and cause is null;
