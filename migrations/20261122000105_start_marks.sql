-- The start of a process is marked in the charts.
create function mark_start() returns trigger language plpgsql as $$
begin
    insert into chart_mark (kind, subject) values ('started', new.name);
    return null;
end $$;
create trigger mark_start after insert on process for each row execute function mark_start();
