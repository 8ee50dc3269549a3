-- One file of the log. Its blocks, the ids in them, its quarantine and its requests change in one transaction.

CREATE TABLE meta (
    first_position INTEGER NOT NULL,
    first_number INTEGER NOT NULL,      -- of the quarantine
    created_at INTEGER NOT NULL         -- ns since 1970, UTC
);

CREATE TABLE blocks (
    position INTEGER PRIMARY KEY,       -- of the first event
    tenant TEXT NOT NULL,
    count INTEGER NOT NULL,
    received_at INTEGER NOT NULL,       -- when it was committed
    body BLOB NOT NULL                  -- a JSON array of events, compressed by zstd
);

CREATE TABLE ids (
    id BLOB PRIMARY KEY                 -- 16 bytes
) WITHOUT ROWID;

CREATE TABLE days (
    day INTEGER PRIMARY KEY,            -- of the ids: their ms since 1970 // 86,400,000
    lowest BLOB NOT NULL,
    highest BLOB NOT NULL
);

CREATE TABLE quarantine (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    source TEXT NOT NULL,
    dialect TEXT NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    body BLOB NOT NULL,
    content_type TEXT NOT NULL,
    form TEXT NOT NULL
);

CREATE INDEX quarantine_by_source ON quarantine (tenant, source, number);

CREATE TABLE requests (
    key TEXT PRIMARY KEY,
    received_at INTEGER NOT NULL,
    answer BLOB NOT NULL,
    accepted INTEGER NOT NULL,
    duplicates INTEGER NOT NULL
) WITHOUT ROWID;
