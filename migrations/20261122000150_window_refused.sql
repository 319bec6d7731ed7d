-- A window grows while windows are easy. What the upstream refused is remembered, so that the windows stay below it,
-- also after a restart and in the next full run. `cheap_windows` counts the easy windows in a row.
alter table lane add column window_refused bigint check (window_refused > 0);

comment on column lane.window_refused is 'shortest window that the upstream has refused as too large, in seconds';
