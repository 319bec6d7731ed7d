-- Each recurring job belongs to a wing, because processes that serve different wings share the
-- table.
alter table recurring_job rename column queue to name;
alter table recurring_job add column wing text not null default 'provision';
alter table recurring_job alter column wing drop default;
update recurring_job set wing = 'upkeep' where name = 'prune';
