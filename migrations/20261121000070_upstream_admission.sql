-- Upstreams that another wing needs, and events that only some upstreams may get.

alter table upstream
    -- false: the row exists because another wing follows the relay; the mirror has no lanes for it and
    -- does not list it
    add column mirrored boolean not null default true,
    -- true: a wing decides which events the upstream gets; its upload lane sends only those in `admission`
    add column admission boolean not null default false,
    add constraint upstream_mirrored_check check (mirrored or not enabled);
