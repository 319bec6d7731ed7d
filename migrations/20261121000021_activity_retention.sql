-- How far pruning has come in a table of which it keeps some old rows, so that it reads each row once.
create table prune_position (
    name text primary key,
    -- The id of the last row that was looked at.
    passed bigint not null
);
