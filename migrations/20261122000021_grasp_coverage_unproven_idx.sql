-- no-transaction
create index concurrently if not exists grasp_coverage_unproven_idx on grasp_coverage (relay_id)
    where state <> 'confirmed' and not refused;
