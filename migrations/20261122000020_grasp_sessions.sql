-- What a session of a followed relay leaves to the next one, and what people see of it.
alter table grasp_relay
    -- of `subscriptions`, which counts only what is open: live filters that the relay ended, and why the first did
    add column subscriptions_closed int not null default 0,
    add column closed_reason text check (octet_length(closed_reason) <= 200),
    -- whether everything confirmed is verified and followed live, as the session says
    add column verified boolean not null default false,
    -- requests that the relay refused since its last success, and when the next one may begin
    add column refusals int not null default 0,
    add column probe_at timestamptz,
    -- of these, the first refusals of their items, and when the next request for other items may begin
    add column first_refusals int not null default 0,
    add column first_probe_at timestamptz,
    -- why the last verification could verify nothing; null if it did
    add column resync_note text check (length(resync_note) <= 1000);

alter table grasp_coverage
    -- whether `reason` is the relay's own refusal, or that no filter can name the item
    add column refused boolean not null default false,
    -- at most so many items are fetched together with this one: half of the batch that failed
    add column batch_size int not null default 100 check (batch_size between 1 and 100),
    -- how far walks through the history have come that took too long, by the letter of the filter: see
    -- jobs/src/grasp/coverage/walked.rs
    add column walked jsonb not null default '{}' check (jsonb_typeof(walked) = 'object'),
    -- null: there is no next attempt
    alter column retry_at drop not null;

-- What of a followed relay is not confirmed: `nothing`; `refused`, if that is recorded for each such item and
-- something is confirmed; else `unproven`.
create function grasp_lacks(relay uuid) returns text language sql stable as $$
    select case
        when not exists (select from grasp_coverage_count c
                         where c.relay_id = relay and c.state <> 'confirmed' and c.items > 0) then 'nothing'
        when exists (select from grasp_coverage c
                     where c.relay_id = relay and c.state <> 'confirmed' and not c.refused)
            or not exists (select from grasp_coverage_count c
                           where c.relay_id = relay and c.state = 'confirmed' and c.items > 0) then 'unproven'
        else 'refused' end
$$;

-- The status of a relay with an open connection. The one rule for what is stored and what is shown.
create function grasp_step(is_verified boolean, relay uuid) returns text language sql stable as $$
    select case when is_verified and grasp_lacks(relay) = 'nothing' then 'in_step' else 'catching_up' end
$$;

-- How a followed relay is, for people: its status, and what lies over it.
create or replace function grasp_relay_state(r grasp_relay) returns text language sql stable as $$
    select case
        when r.unwanted_since is not null then 'unwanted'
        when r.limited_until > now() then 'limited'
        when r.lease_until > now() and r.status in ('in_step', 'catching_up')
            then grasp_step(r.status = 'in_step', r.id)
        when r.fault is not null then 'fault'
        when r.failing_since <= now() - interval '24 hours' then 'dead'
        when r.lease_until > now() and r.status = 'connecting' then 'connecting'
        -- due for a minute, and no process has claimed it
        when r.next_attempt_at < now() - interval '60 seconds' then 'no_room'
        else 'waiting' end
$$;
