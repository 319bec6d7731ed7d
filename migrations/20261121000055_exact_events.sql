-- Events that contain U+0000 were refused as `unstorable` until now. They are stored in the column `tags`,
-- as `[{"exact": HEX}]` with the bytes of the JSON text `[tags, content]`. They are fetched again.
delete from known_id where reason = 'unstorable';

-- A `d` tag of more than 1,024 bytes names no stored event.
delete from deletion_address where octet_length(d_tag) > 1024;
