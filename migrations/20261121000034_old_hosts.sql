-- Renames that were under way before this migration.
update relay set old_hosts = array[sent->>'host']
where not synced and sent->>'host' <> subdomain || '.' || zooid_domain;
