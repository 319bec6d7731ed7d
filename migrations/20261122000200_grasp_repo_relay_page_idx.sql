-- no-transaction
-- The repositories of one relay are read page by page.
create index concurrently if not exists grasp_repo_relay_page_idx on grasp_repo_relay (url, upstream_id, address);
