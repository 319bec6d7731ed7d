-- no-transaction
-- grasp_repo_relay_page_idx takes its place.
drop index concurrently if exists grasp_repo_relay_url_idx;
