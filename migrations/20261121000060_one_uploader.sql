-- One uploader per upstream: the upload lane. What a reconciliation finds missing waits in
-- upload_verdict, as `pending` without an attempt.
alter table upload_verdict
    -- When the event first got a row.
    add column created_at timestamptz not null default now(),
    -- The connection was lost before the answer to the last attempt: the event may be the reason.
    add column is_suspect boolean not null default false,
    -- The event was sent, and no answer is stored: a duplicate may be our own copy.
    add column is_sent boolean not null default false;

alter table lane
    -- Upload: the filter under which upload_position was reached.
    add column upload_filter text check (length(upload_filter) <= 64),
    -- Upload: every event up to this position may have been sent, also by a run that died.
    add column upload_sending bigint not null default 0,
    -- Upload: when the upstream last answered an event.
    add column upload_answered_at timestamptz;

alter table upstream
    -- Since when the upstream is known to take events from their authors only, and its words.
    add column authors_only_at timestamptz,
    add column authors_only_reason text check (length(authors_only_reason) <= 1000),
    add check ((authors_only_at is null) = (authors_only_reason is null));
