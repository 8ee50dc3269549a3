CREATE TABLE verdicts (
    event BLOB PRIMARY KEY,
    id TEXT NOT NULL,
    actor BLOB NOT NULL,
    kept_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX verdicts_by_age ON verdicts (kept_at);
CREATE TABLE bookmark (position INTEGER NOT NULL);
INSERT INTO bookmark VALUES (0);
