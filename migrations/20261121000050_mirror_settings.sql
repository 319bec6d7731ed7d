-- The deployment's settings of the mirror: one row, which every process reads for each job. The first
-- process that starts with MIRROR_DEFAULTS or MIRROR_PROFILE writes it; then only operators change it.
create table mirror_setting (
    only_row boolean primary key default true check (only_row),
    -- The settings that differ from the defaults; checked on write.
    config jsonb not null default '{}' check (jsonb_typeof(config) = 'object'),
    -- How often the recurring jobs run.
    profile text not null default 'production' check (profile in ('production', 'development')),
    updated_at timestamptz not null default now()
);

alter table lane
    -- The filter of the lane; null in rows of earlier releases. The hash identifies it.
    add column filter jsonb check (jsonb_typeof(filter) = 'object'),
    -- Since when the upstream has another filter. The lane does no work and is not shown, but keeps its
    -- progress, because the filter may return.
    add column retired_at timestamptz check (retired_at is null or status <> 'syncing');
