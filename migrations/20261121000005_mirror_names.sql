-- Renames the mirror's queues and recurring jobs after the wing.
create temporary table renamed (old text primary key, new text not null) on commit drop;
insert into renamed values
    ('sync', 'mirror'), ('events', 'mirror-events'), ('uploads', 'mirror-uploads'),
    ('deletions', 'mirror-deletions');

update apalis.jobs set job_type = new from renamed where job_type = old;
update apalis.workers set worker_type = new from renamed where worker_type = old;
update paused_queue set queue = new from renamed where queue = old;

-- The processes insert these rows again, under their new names.
delete from recurring_job where name in
    ('realtime-sync', 'backfill-sync', 'upload-sync', 'sync-recovery', 'full-sync', 'purge-expired');
