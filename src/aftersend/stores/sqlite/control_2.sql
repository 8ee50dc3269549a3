-- What pullers have in hand, or have had.

CREATE TABLE leases (
    subscription TEXT NOT NULL,         -- the id, whichever of its lines the lease is on
    id TEXT NOT NULL,
    body BLOB NOT NULL,                 -- JSON
    PRIMARY KEY (subscription, id)
) WITHOUT ROWID;
