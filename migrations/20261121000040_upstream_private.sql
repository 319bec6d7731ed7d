-- Whether the host of an upstream may have an address that is not public: loopback, private,
-- link-local. Only the command line sets it. Existing upstreams were added by operators and by API
-- keys alike, so that none of them gets it.
alter table upstream add column allow_private boolean not null default false;
