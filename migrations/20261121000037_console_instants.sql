-- As for relays: instants that our types can hold.
alter table zooid_instance add constraint zooid_instance_instants check (
    coalesce(is_instant(opened_at), true) and coalesce(is_instant(retry_at), true) and is_instant(seen_at)
    and coalesce(is_instant(probe_until), true) and coalesce(is_instant(limited_at), true)
    and coalesce(is_instant(recovered_at), true)) not valid;
alter table paused_queue add constraint paused_queue_instants check (is_instant(paused_at)) not valid;
alter table recurring_job add constraint recurring_job_instants check (
    coalesce(is_instant(next_at), true) and coalesce(is_instant(last_started_at), true)
    and coalesce(is_instant(last_ended_at), true)) not valid;
alter table operator_action add constraint operator_action_instants check (is_instant(created_at)) not valid;
