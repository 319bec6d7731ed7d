-- Upload lanes: the words with which the upstream last refused an event, and when.
alter table lane
    add column upload_refusal text,
    add column upload_refused_at timestamptz,
    add check ((upload_refusal is null) = (upload_refused_at is null));
