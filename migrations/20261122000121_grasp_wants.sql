-- Each lookup has one way to go: the planner, which may know nothing about the tables yet, has no join to order.
create function grasp_repo_wants(service uuid, repo text, relay text) returns boolean
    language plpgsql stable as $$
begin
    return exists (select from grasp_repo_relay w
                   where w.upstream_id = service and w.address = repo and w.url = relay)
        and exists (select from grasp_repo r
                    where r.upstream_id = service and r.address = repo and r.left_at is null)
        and exists (select from grasp_service s
                    where s.upstream_id = service and s.enabled and s.removing_at is null);
end $$;

create or replace function grasp_wants(relay text, asked_family text, asked_item text) returns boolean
    language plpgsql stable as $$
begin
    case asked_family
    when 'announcements' then
        return exists (
                select from grasp_service s
                cross join lateral (
                    select from grasp_repo_relay w
                    where w.upstream_id = s.upstream_id and w.url = relay
                      and grasp_repo_wants(w.upstream_id, w.address, relay) limit 1) named
                where s.enabled and s.removing_at is null)
            or exists (
                select from grasp_bootstrap b join grasp_service s using (upstream_id)
                where b.url = relay and s.enabled and s.removing_at is null);
    when 'state' then
        return exists (select from grasp_repo r
                       where r.identifier = asked_item and grasp_repo_wants(r.upstream_id, r.address, relay));
    when 'address' then
        return exists (select from grasp_service s
                       where s.enabled and grasp_repo_wants(s.upstream_id, asked_item, relay));
    when 'root' then
        return exists (select from grasp_root o
                       where o.event_id = decode(asked_item, 'hex')
                         and grasp_repo_wants(o.upstream_id, o.address, relay));
    when 'deletion' then
        return exists (select from grasp_author a
                       where a.pubkey = decode(asked_item, 'hex')
                         and grasp_repo_wants(a.upstream_id, a.address, relay));
    end case;
end $$;
