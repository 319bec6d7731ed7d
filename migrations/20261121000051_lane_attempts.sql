-- Why a lane is retrying, and whether its attempts move it on.
alter table lane
    -- The error of the last failed attempt; null once an attempt succeeds. `error_message` is the error
    -- of a lane that has given up until `retry_at`.
    add column last_error text check (length(last_error) <= 1000),
    add column last_error_at timestamptz,
    -- The failed attempts of the current job, and how many it has.
    add column failed_attempts int not null default 0,
    add column allowed_attempts int not null default 0,
    -- When the next attempt of a failed job is due; null while an attempt runs.
    add column next_attempt_at timestamptz,
    -- When a position, a stored event or a verdict last moved the lane on, and the epoch of the lease
    -- under which it did.
    add column progressed_at timestamptz,
    add column progressed_epoch bigint,
    -- Crashes of the current job that were followed by progress; they do not count any more.
    add column forgiven_crashes int not null default 0,
    add check ((last_error is null) = (last_error_at is null));

-- Notes on a lane that an update moved it on. Every statement that moves a lane shares this rule.
create function note_progress() returns trigger language plpgsql as $$
begin
    if new.backfill_until < old.backfill_until
       or new.backfill_target > old.backfill_target
       or new.cursor_at is distinct from old.cursor_at and new.cursor_at is not null
       or new.window_seconds < old.window_seconds
       or new.upload_position > old.upload_position
       or new.stored > old.stored
       or new.uploaded + new.upload_duplicate + new.upload_rejected
          > old.uploaded + old.upload_duplicate + old.upload_rejected then
        new.progressed_at := now();
        new.progressed_epoch := new.lease_epoch;
    end if;
    return new;
end $$;

create trigger note_progress before update on lane
    for each row execute function note_progress();

update lane set last_error = error_message, last_error_at = coalesce(failed_at, now())
where status = 'error';
