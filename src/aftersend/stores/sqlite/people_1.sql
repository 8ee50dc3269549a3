-- How much each person lets us keep of what they do.

CREATE TABLE people (
    key BLOB PRIMARY KEY,               -- 16 bytes that stand for tenant and person; the address itself is not kept
    tenant TEXT NOT NULL,
    level INTEGER NOT NULL,             -- 0 none, 1 anonymous, 2 full
    changed_at INTEGER NOT NULL,        -- ns since 1970, UTC
    method TEXT NOT NULL                -- how they said it
) WITHOUT ROWID;
