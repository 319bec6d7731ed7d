-- A page of a window that is walked moves a lane on, too.
create or replace function note_progress() returns trigger language plpgsql as $$
begin
    if new.backfill_until < old.backfill_until
       or new.backfill_target > old.backfill_target
       or new.cursor_at is distinct from old.cursor_at and new.cursor_at is not null
       or new.walk_at is distinct from old.walk_at and new.walk_at is not null
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
