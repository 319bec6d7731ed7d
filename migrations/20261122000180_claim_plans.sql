-- A claim finds its rows by their keys. Its plan is made once for a session, often while the tables are empty: it then read
-- them whole until the next analysis.
alter function claim_relays(text[], text[], int[], text[], float8, text[], text[], text, bigint)
    set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off;
