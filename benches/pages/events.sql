-- Events $1 to $2 of 5,000 authors within a year: notes, reactions, reposts, comments, and one in ten addressable.
insert into event (id, pubkey, created_at, kind, tags, content, sig, d_tag)
select sha256(('event' || n)::bytea), sha256(('author' || n % 5000)::bytea), 1760000000 + (n * 3.1536)::bigint,
       case when n % 10 = 0 then 30023 else (array[1, 1, 1, 1, 7, 7, 7, 6, 1111])[1 + n % 9] end,
       jsonb_build_array(jsonb_build_array('e', encode(sha256(('event' || n / 2)::bytea), 'hex')),
                         jsonb_build_array('p', encode(sha256(('author' || n % 77)::bytea), 'hex'))),
       repeat('what somebody wrote ', (n % 20)::int), sha256('a') || sha256('b'),
       case when n % 10 = 0 then n::text end
from generate_series($1::bigint, $2::bigint) n
