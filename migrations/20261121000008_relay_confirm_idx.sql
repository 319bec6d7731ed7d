-- no-transaction
create index concurrently if not exists relay_confirm_idx on relay (id) where confirm_at is not null;
