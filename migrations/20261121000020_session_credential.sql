-- A password session ends when the password changes: the HMAC of the password with the session's token
-- as the key. Without the token it reveals nothing about the password. Null for other sessions.
alter table dashboard_session add column credential bytea;
