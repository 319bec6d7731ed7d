-- Rows that were written before the trigger. On its own, because it reads the whole table and blocks
-- nobody.
update apalis.jobs set id = id
where status not in ('Pending', 'Failed', 'Queued', 'Running', 'Done', 'Killed')
   or (done_at is null) = (status in ('Done', 'Killed'))
   or (status = 'Failed' and attempts >= max_attempts)
   or attempts not between 0 and 1000000 or max_attempts not between 1 and 1000000
   or priority is null or priority not in (-5, 0, 5, 10)
   or not is_instant(run_at) or not is_instant(lock_at) or not is_instant(done_at)
   or (octet_length(job) > 16777216 and status not in ('Done', 'Killed'));
