-- Events $1 to $2 of a store with the mix of a real relay, in no order: 30 % replaceable or addressable with
-- versions, 2 % kind 5, 10 % with twenty tags, contents of 10 B to 60 kB. $3 is the number of the upstream that
-- sent them; null if it takes no events.
insert into event (id, pubkey, created_at, kind, tags, content, sig, d_tag, expires_at, source)
select sha256(('event' || n)::bytea), sha256(('author' || author)::bytea), 1700000000 + n * 10 + r1 % 5000, kind,
       coalesce((
           select jsonb_agg(case (i + n) % 5
               when 0 then jsonb_build_array('e', encode(sha256(('event' || n - i % 17)::bytea), 'hex'), '', 'reply')
               when 1 then jsonb_build_array('p', encode(sha256(('author' || (i * 104729 + n * 7) % 1009)::bytea), 'hex'))
               when 2 then jsonb_build_array('e', encode(sha256(('event' || n - (i * 7919 + n) % 500)::bytea), 'hex'))
               when 3 then jsonb_build_array('t', 'topic' || (i * 613 + n) % 997)
               else jsonb_build_array('p', encode(sha256(('author' || (i * 31 + n * 13) % 20000)::bytea), 'hex')) end)
           from generate_series(1, tags::int) i), '[]')
       || case when kind >= 30000 then jsonb_build_array(jsonb_build_array('d', 'item' || n % 50)) else '[]' end,
       left(repeat(md5(n::text) || ' what somebody wrote, and more of it; ', (1 + bytes / 70)::int), bytes::int),
       sha256(('s' || n)::bytea) || sha256(('t' || n)::bytea),
       case when kind >= 30000 then 'item' || n % 50 when kind in (0, 3, 10002) then '' end,
       case when r2 % 50 = 0 then 4000000000 end, $3
from (select n, (power(r0 % 9973 / 9973.0, 3) * 20000)::int as author, r1, r2,
             case when r1 % 10 = 0 then 20 else (array[0, 1, 1, 1, 1, 2, 2, 3, 4])[1 + r2 % 9] end as tags,
             case when r2 % 100 < 85 then 10 + r1 % 100
                  when r2 % 1000 < 997 then 150 + r1 % 600
                  else 2000 + (power(r1 % 997 / 997.0, 6) * 58000)::int end as bytes,
             (array[5, 5, 0, 0, 0, 0, 0, 3, 3, 10002, 10002, 10002] || array_fill(30023, array[10])
              || array_fill(30078, array[10]) || array_fill(7, array[20]) || array_fill(6, array[8])
              || array_fill(1, array[40]))[1 + r0 % 100] as kind
      from (select n, abs(hashint8(n)::bigint) as r0, abs(hashint8(n + 1000000007)::bigint) as r1,
                   abs(hashint8(n + 2000000011)::bigint) as r2
            from generate_series($1::bigint, $2::bigint) n) drawn) made
order by r1
