-- What a relay's row says of calls that are open, names that move and outages. Columns without a constrained
-- type: PostgreSQL would rewrite the table for it.

-- zooid may still apply a call that was never answered. From this time on, zooid can be brought in step
-- for certain: the document is sent (again), although zooid may have accepted it. Null: nothing to confirm.
-- docs/adr/0014-unanswered-calls.md
alter table relay add column confirm_at timestamptz;
-- Hosts that zooid may still hold for this relay, beside the wanted one: a rename has not reached zooid.
alter table relay add column old_hosts text[] not null default '{}';
-- Gave up, and every attempt failed in one outage of this instance: it starts over when the instance answers.
alter table relay add column outage_instance text;
-- When the relay last started over after such an outage.
alter table relay add column revived_at timestamptz;
-- Public key of the relay's own key on zooid; null if another release created the relay.
alter table relay add column identity text;
