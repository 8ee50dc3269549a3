-- What the short links of text messages stand for.

CREATE TABLE "references" (
    id BLOB PRIMARY KEY,                -- 7 bytes of chance
    token TEXT NOT NULL,                -- sealed: what it says cannot be read here
    channel TEXT NOT NULL,
    made_at INTEGER NOT NULL            -- ns since 1970, UTC
) WITHOUT ROWID;

CREATE INDEX references_by_age ON "references" (made_at);
