-- The record of operators says how an action ended, and what it changed.
alter table operator_action
    -- refused: the rules did not allow it. failed: an error prevented it.
    add column outcome text not null default 'done' check (outcome in ('done', 'refused', 'failed')),
    -- the fields that the action changed, with their values before and after it
    add column before jsonb,
    add column after jsonb;

-- Returns the way by which an action came. The name of an API key begins with `key `, and that of the command
-- line is user@host.
create function audit_via(who text) returns text language sql immutable parallel safe as $$
    select case when who like 'key %' then 'api'
                when who like '%@%' or who = 'operator' then 'command'
                else 'page' end
$$;
