-- The history of recurring jobs, and what a run enqueues, so that an operator can start one.

-- The job of a run, as the process that started last would enqueue it; null for rows of an earlier release.
alter table recurring_job
    add column queue text,
    add column payload bytea,
    add column priority int,
    add column max_attempts int;

-- The last 100 runs of each recurring job that have ended.
create table recurring_run (
    id bigint generated always as identity primary key,
    name text not null references recurring_job (name) on delete cascade,
    started_at timestamptz,
    ended_at timestamptz not null,
    error text_1000
);
create index recurring_run_name_idx on recurring_run (name, id);

create function note_run() returns trigger language plpgsql as $$
begin
    insert into recurring_run (name, started_at, ended_at, error)
    values (new.name, new.last_started_at, new.last_ended_at, new.last_error);
    delete from recurring_run
    where name = new.name
      and id <= (select id from recurring_run where name = new.name order by id desc offset 100 limit 1);
    return null;
end $$;

create trigger note_run after update of last_ended_at on recurring_job
    for each row when (new.last_ended_at is not null) execute function note_run();
