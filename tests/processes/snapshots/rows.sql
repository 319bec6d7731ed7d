-- Rows with long hosts and long errors, for tests of what a terminal shows. Their times are days ago.
insert into relay (id, tenant_pubkey, subdomain, zooid_domain, schema, policy_public_read,
    policy_public_write, policy_public_join, policy_strip_signatures, groups_enabled,
    management_enabled, members_can_invite, blossom_enabled, livekit_enabled, push_enabled,
    created_at, synced_generation, provisioned_at, sync_error, failure_kind, attempts, exhausted_at, retry_at)
select '00000000-0000-4000-8000-' || lpad(n::text, 12, '0'), repeat('a', 64),
    case n when 303 then repeat('x', 46) when 301 then 'b' else 'relay-' || n end,
    'zooid.test', 's' || n, true, true, true, true, true, true, true, true, true, true,
    now() - make_interval(days => 400 - n),
    case when n in (301, 302, 303) then 0 else 1 end,
    case when n not in (301, 302, 303) then now() end,
    case when n in (302, 303) then
        'zooid answered 500: the S3 endpoint refused the keys and many more words that no table of eighty columns has room for'
        else '' end,
    case when n in (302, 303) then 'transient'::failure_kind end,
    case n when 303 then 7 when 302 then 2 else 0 end,
    case n when 303 then now() end,
    case n when 302 then now() + interval '2 hours 30 minutes' end
from generate_series(1, 303) n;

insert into activity (resource_id, tenant_pubkey, activity_type, detail, created_at)
select '00000000-0000-4000-8000-000000000303', repeat('a', 64), 'fail_relay_sync',
    jsonb_build_object('attempt', n, 'duration_ms', 120 * n, 'error',
        'zooid answered 500: the S3 endpoint refused the keys and many more words that no table has room for'),
    '2026-01-02 03:04:05Z'::timestamptz + make_interval(mins => n)
from generate_series(1, 3) n;

insert into zooid_instance (name, opened_at, retry_at, last_error) values
    ('http://zooid-of-a-long-name.internal.example.com:3334', now() - interval '3 days', now(),
     'zooid refused our key: add its public key to API_WHITELIST of this instance');

insert into apalis.workers (id, worker_type, storage_name, layers, last_seen, started_at) values
    ('w1', 'sync-relay', 'PostgresStorage', '0.1.0 a-host-with-a-long-name.internal.example.com:4711', now(),
     now() - interval '3 days 2 hours'),
    ('w2', 'mirror-deletions', 'PostgresStorage', '0.1.0 host:1', now(), now() - interval '3 days 2 hours');

insert into apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at, done_at, last_result, priority)
values
    ('01K0000000000000000000000A', 'sync-relay', '{}', 'Pending', 0, 7, now() - interval '3 days', null, null, 0),
    ('01K0000000000000000000000B', 'mirror-deletions', '{}', 'Failed', 2, 7, now() + interval '3 days 2 hours', null,
     '{"Err": "the upstream closed the connection and said so in many more words than a table has room for"}', 0),
    ('01K0000000000000000000000C', 'resync', '{}', 'Killed', 7, 7, now() - interval '5 days', now() - interval '4 days',
     '{"Err": "zooid answered 500: the S3 endpoint refused the keys and many more words"}', 0);

insert into paused_queue (queue, paused_by, paused_at) values ('mirror', 'operator', now() - interval '3 days 2 hours');

insert into api_key (name, prefix, digest, last_used_at) values
    ('the robot that reads the statistics of all relays for the monthly report', 'rlk_aaaa', decode(repeat('01', 32), 'hex'), now() - interval '3 days 2 hours');

insert into upstream (url, notes) values
    ('wss://a-relay-of-a-long-name.many-labels.internal.example.com:7777',
     'asked by the operators of the other house to be mirrored until the end of the year');

insert into lane (upstream_id, lane, filter_hash, status, error_message, failed_at, consecutive_failures,
    retry_at, last_error, last_error_at, failed_attempts, allowed_attempts, stored)
select id, 'backfill', 'f', 'error', error, now() - interval '3 days 2 hours', 29,
    now() + interval '3 days 2 hours 30 minutes', error, now() - interval '3 days 2 hours', 3, 4, 12
from upstream,
    (values ('failed to connect: the certificate of the relay is not valid, and has not been for many days')) of (error)
where url like '%long-name%';
