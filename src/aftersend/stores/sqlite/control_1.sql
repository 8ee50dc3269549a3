-- What an operator registered, and how far each subscription has come.

CREATE TABLE registry (
    kind TEXT NOT NULL,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,                 -- the id, where records of this kind have one
    body BLOB NOT NULL,                 -- JSON; secrets are sealed
    PRIMARY KEY (kind, tenant, name)
) WITHOUT ROWID;

CREATE TABLE cursors (
    subscription TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    sequence INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE set_aside (
    subscription TEXT NOT NULL,
    position INTEGER NOT NULL,
    state TEXT NOT NULL,
    next_at INTEGER NOT NULL,           -- ns since 1970, UTC
    body BLOB NOT NULL,                 -- JSON, with the whole event
    PRIMARY KEY (subscription, position)
) WITHOUT ROWID;

CREATE TABLE manifests (
    subscription TEXT NOT NULL,
    day TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    body BLOB NOT NULL,                 -- JSON
    PRIMARY KEY (subscription, day, epoch)
) WITHOUT ROWID;

CREATE TABLE keys (
    id TEXT PRIMARY KEY,                -- of a key in the keyring that this store needs
    fingerprint TEXT NOT NULL
) WITHOUT ROWID;
