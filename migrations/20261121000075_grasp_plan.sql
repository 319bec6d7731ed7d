-- The next items of a plan: those with the fewest failed attempts, in the order of their names.
create index grasp_coverage_plan_idx on grasp_coverage (relay_id, family, attempts, item) where state = 'missing';
