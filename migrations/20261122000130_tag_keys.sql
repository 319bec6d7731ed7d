-- The tags of an event, found by an index of hashes over the column `tags` instead of a table beside it.

-- The tags of an event as a list. An event that contains U+0000 has its tags and content as bytes in
-- `[{"exact": HEX, "tags": TAGS}]`. Without TAGS, as earlier releases store it, all of it is parsed: there this
-- character becomes a text that is too long for a value.
create function plain_tags(tags jsonb) returns jsonb language plpgsql immutable parallel safe as $$
begin
    if jsonb_typeof(tags->0) = 'object' then
        if tags->0 ? 'tags' then
            return tags->0->'tags';
        end if;
        return regexp_replace(convert_from(decode(tags->0->>'exact', 'hex'), 'UTF8'),
                              '(?<!\\)((?:\\\\)*)\\u0000', '\1' || repeat('x', 256), 'g')::jsonb->0;
    end if;
    return tags;
end $$;

-- The tags that a filter can match: single letters, with values of at most 255 characters without U+0000.
create function indexed_tags(tags jsonb) returns table (name text, value text, index int)
    language sql immutable parallel safe
begin atomic
    select tag->>0, tag->>1, number::int - 1
    from jsonb_array_elements(plain_tags(tags)) with ordinality tag (tag, number)
    where octet_length(tag->>0) = 1 and (ascii(tag->>0) | 32) between 97 and 122 and length(tag->>1) <= 255;
end;

-- The keys of a list of tags: a hash of each that a filter can match, so that an entry of the index has 8 bytes.
-- In plpgsql, which takes a third of the time of the same in SQL, and with no function of ours, because a restored
-- dump builds the index without a search path. The concatenation unpacks a long list once. The cost keeps the
-- planner from computing keys for all rows of a table that it believes to be small.
-- Whoever changes this function or `plain_tags` must build event_tags_idx again.
create function tag_keys(tags jsonb) returns bigint[] language plpgsql immutable parallel safe cost 10000 as $$
declare
    list jsonb := tags || '[]';
    tag jsonb;
    name text;
    value text;
    keys bigint[] := '{}';
begin
    for place in 0 .. jsonb_array_length(list) - 1 loop
        tag := list->place;
        name := tag->>0;
        value := tag->>1;
        if octet_length(name) = 1 and (ascii(name) | 32) between 97 and 122 and length(value) <= 255 then
            keys := keys || hashtextextended(name || value, 0);
        end if;
    end loop;
    return keys;
end $$;

-- The keys of every name with every value.
create function tag_keys(names text[], vals text[]) returns bigint[] language plpgsql immutable parallel safe as $$
declare
    name text;
    value text;
    keys bigint[] := '{}';
begin
    foreach name in array names loop
        foreach value in array vals loop
            keys := keys || hashtextextended(name || value, 0);
        end loop;
    end loop;
    return keys;
end $$;

-- Whether an event has a tag with one of the names and one of the values: different tags may have the same key.
create function has_tag(tags jsonb, names text[], vals text[]) returns boolean
    language plpgsql immutable parallel safe as $$
declare
    list jsonb := plain_tags(tags) || '[]';
    tag jsonb;
begin
    for place in 0 .. jsonb_array_length(list) - 1 loop
        tag := list->place;
        if tag->>0 = any(names) and tag->>1 = any(vals) then
            return true;
        end if;
    end loop;
    return false;
end $$;

-- The events that have a tag with one of the names and one of the values, deleted ones included. Each is found
-- by the index: `offset 0` keeps the planner from joining in another order.
create function events_tagged(names text[], vals text[]) returns setof event
    language sql stable parallel safe rows 10 as $$
    select e.* from event e
    where tag_keys(plain_tags(e.tags)) && tag_keys(names, vals) and has_tag(e.tags, names, vals)
    offset 0
$$;
