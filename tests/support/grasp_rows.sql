-- A service with two repositories, a followed relay in each state, and something of everything that people
-- see of the GRASP wing.
insert into upstream (id, url, direction, live, negentropy, admission)
values ('00000000-0000-0000-0000-000000000001', 'wss://git.example.com', 'both', true, true, true);
insert into upstream (id, url, mirrored, enabled, negentropy_verdict, negentropy_verdict_until)
values ('00000000-0000-0000-0000-0000000000aa', 'wss://a.example.com', false, false, 'supported', now() + interval '7 days');
insert into grasp_service (upstream_id, names, policy) values
    ('00000000-0000-0000-0000-000000000001', '{git.example.com}', '{}');
insert into grasp_bootstrap (upstream_id, url) values
    ('00000000-0000-0000-0000-000000000001', 'wss://c.example.com');
insert into grasp_process (process) values ('host:1');

insert into grasp_relay (id, url, upstream_id, status, status_at, lease_owner, lease_until, lease_epoch, connected_at,
    last_good_at, subscriptions, attempts, connects, received, stored, drift_last, drift_total, resync_due_at) values
    ('00000000-0000-0000-0000-00000000000a', 'wss://a.example.com', '00000000-0000-0000-0000-0000000000aa', 'in_step',
        now() - interval '2 hours', 'host:1', now() + interval '1 hour', 3, now() - interval '2 hours', now(), 12, 4, 3,
        900, 800, 2, 7, now() + interval '20 hours'),
    ('00000000-0000-0000-0000-00000000000b', 'wss://b.example.com', null, 'catching_up', now() - interval '5 minutes',
        'host:1', now() + interval '1 hour', 1, now() - interval '5 minutes', null, 4, 1, 1, 90, 60, 0, 0, null);
insert into grasp_relay (id, url, status, lease_owner, lease_until) values
    ('00000000-0000-0000-0000-0000000000c1', 'wss://connecting.example.com', 'connecting', 'host:1', now() + interval '1 hour');
insert into grasp_relay (id, url, next_attempt_at, failures, failing_since, last_error, last_error_at, fault, fault_since,
    limited_until, limits, unwanted_since) values
    ('00000000-0000-0000-0000-00000000000c', 'wss://c.example.com', now() + interval '40 seconds', 3,
        now() - interval '1 minute', 'the connection was refused', now(), null, null, null, 0, null),
    ('00000000-0000-0000-0000-00000000000d', 'wss://dead.example.com', now() + interval '20 hours', 30,
        now() - interval '3 days', 'no answer within 5 s', now(), null, null, null, 0, null),
    ('00000000-0000-0000-0000-00000000000e', 'wss://fault.example.com', now() + interval '5 hours', 2,
        now() - interval '2 hours', 'the name does not resolve', now(), 'dns', now() - interval '2 hours', null, 0, null),
    ('00000000-0000-0000-0000-00000000000f', 'wss://limited.example.com', now(), 0, null, null, null, null, null,
        now() + interval '1 hour', 2, null),
    ('00000000-0000-0000-0000-000000000010', 'wss://noroom.example.com', now() - interval '5 minutes', 0, null, null,
        null, null, null, null, 0, null),
    ('00000000-0000-0000-0000-000000000011', 'wss://unwanted.example.com', now(), 0, null, null, null, null, null, null,
        0, now() - interval '10 seconds');

insert into grasp_repo (upstream_id, address, pubkey, identifier, announcement_id, announced_at, name, relays_cut)
select '00000000-0000-0000-0000-000000000001', '30617:' || repeat(key, 32) || ':' || identifier, decode(repeat(key, 32), 'hex'),
       identifier, decode(repeat('a' || left(key, 1), 32), 'hex'), 1760000000, name, cut
from (values ('aa', 'alpha', 'Alpha tools', 0), ('bb', 'beta: with a colon', null, 2)) repo (key, identifier, name, cut);
insert into grasp_repo_relay (upstream_id, address, url)
select g.upstream_id, g.address, url from grasp_repo g join (values
    ('alpha', 'wss://a.example.com'), ('alpha', 'wss://b.example.com'), ('beta: with a colon', 'wss://a.example.com'),
    ('beta: with a colon', 'wss://dead.example.com')) named (identifier, url) using (identifier);
insert into event (id, pubkey, created_at, kind, tags, content, sig)
values (decode(repeat('01', 32), 'hex'), decode(repeat('aa', 32), 'hex'), 1760000100, 1621,
    '[["subject", "It fails <b>often</b>"]]', 'text', decode(repeat('00', 64), 'hex'));
insert into grasp_root (upstream_id, address, event_id, kind)
select upstream_id, address, decode(repeat('01', 32), 'hex'), 1621 from grasp_repo where identifier = 'alpha';
insert into grasp_author (upstream_id, address, pubkey) select upstream_id, address, pubkey from grasp_repo;

insert into grasp_coverage (relay_id, family, item, state, confirmed_at, wanted_at)
select r.id, i.family, i.item, 'confirmed', now() - interval '1 minute', now() - interval '1 hour'
from grasp_relay r join grasp_repo_relay n using (url)
    join grasp_repo_item i on (i.upstream_id, i.address) = (n.upstream_id, n.address)
where r.url = 'wss://a.example.com' group by 1, 2, 3;
insert into grasp_coverage (relay_id, family, item, wanted_at, retry_at, attempts, reason)
select r.id, i.family, i.item, now() - interval '2 hours', now() + interval '30 seconds', 2, 'CLOSED: error: try later'
from grasp_relay r join grasp_repo_relay n using (url)
    join grasp_repo_item i on (i.upstream_id, i.address) = (n.upstream_id, n.address)
where r.url <> 'wss://a.example.com' group by 1, 2, 3;
insert into grasp_coverage (relay_id, family, item, state, confirmed_at)
select id, 'announcements', '*', 'confirmed', now() from grasp_relay where url = 'wss://a.example.com';
insert into grasp_batch (relay_id, epoch, family, purpose, items, method, begun_at)
select id, 1, 'root', 'missing', 1, 'pages', now() - interval '20 seconds' from grasp_relay where url = 'wss://b.example.com';
update grasp_coverage c set state = 'in_flight', batch = b.id from grasp_batch b
where c.relay_id = b.relay_id and c.family = 'root';
insert into grasp_batch (relay_id, epoch, family, purpose, items)
select id, 1, 'address', 'missing', 2 from grasp_relay where url in ('wss://a.example.com', 'wss://b.example.com');
update grasp_batch b set status = case r.url when 'wss://a.example.com' then 'done' else 'failed' end, ended_at = now(),
    method = 'pages', pages = 3, received = 40, stored = 30,
    reason = case r.url when 'wss://a.example.com' then null else 'CLOSED: error: try later' end
from grasp_relay r where r.id = b.relay_id and b.family = 'address';
insert into grasp_gap (relay_id, family, item, items, since, until, reason)
select id, 'root', repeat('01', 32), 1, 1760000000, 1760000000, 'the second holds more events than the relay gives'
from grasp_relay where url = 'wss://b.example.com';
insert into grasp_outbox (relay_id, due_at)
select id, now() - interval '10 seconds' from grasp_relay where url = 'wss://b.example.com';

insert into admission (upstream_id, event_id, rule, address, source, relay_id, accepted_at)
select '00000000-0000-0000-0000-000000000001', decode(repeat(id, 32), 'hex'), 'names-service',
       '30617:' || repeat('aa', 32) || ':alpha', source, relay_id, now() - ago
from (values ('01', 'live', '00000000-0000-0000-0000-00000000000a'::uuid, interval '10 seconds'),
             ('02', 'missing', '00000000-0000-0000-0000-00000000000a', interval '1 hour'),
             ('03', 'own', null, interval '2 hours')) accepted (id, source, relay_id, ago);
insert into parked (upstream_id, event_id, kind, pubkey, created_at, reason, detail, body, policy_rev, relay_id, parked_at, expires_at)
select '00000000-0000-0000-0000-000000000001', decode(repeat(id, 32), 'hex'), kind, decode(repeat('cc', 32), 'hex'), 1760000000,
       reason, detail, '{}', 1, '00000000-0000-0000-0000-00000000000a', now() - ago, now() + interval '7 days' - ago
from (values ('d1', 1111, 'orphan', 'it refers to nothing that was accepted', interval '1 hour'),
             ('d2', 1111, 'orphan', 'it refers to nothing that was accepted', interval '2 hours'),
             ('d3', 30617, 'names-another-service', 'neither clone nor relays names git.example.com', interval '3 hours'))
     parked (id, kind, reason, detail, ago);
insert into parked_key (upstream_id, key, event_id)
select upstream_id, 'e:' || repeat('ff', 32), event_id from parked where reason = 'orphan';
