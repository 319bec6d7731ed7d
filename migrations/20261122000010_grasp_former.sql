-- The settings of an upstream before a service adopted it: enabled, live, backfill, negentropy, direction,
-- allow_private. Removing the service restores them. Null: the upstream is the service's own, or was adopted
-- before this column existed.
alter table grasp_service add column former jsonb check (jsonb_typeof(former) = 'object');
