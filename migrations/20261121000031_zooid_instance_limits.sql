-- The calls in flight that the instance bears; null until it has answered.
alter table zooid_instance add column calls_allowed double precision
    constraint zooid_instance_calls_allowed check (calls_allowed >= 1);
-- The last decrease of calls_allowed.
alter table zooid_instance add column limited_at timestamptz;
-- The breaker is open because the instance refuses our key.
alter table zooid_instance add column refuses_key boolean not null default false;
-- When a process last named the instance in its configuration.
alter table zooid_instance add column seen_at timestamptz not null default now();
-- Whether relays gave up in the instance's present outage: they start over when it answers.
alter table zooid_instance add column has_given_up boolean not null default false;
-- The first answer after an outage in which relays gave up.
alter table zooid_instance add column recovered_at timestamptz;
