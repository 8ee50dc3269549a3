-- Ids reach their table in large sorted batches; until then they stand in their blocks alone.

CREATE TABLE gathered (
    position INTEGER NOT NULL           -- the ids of all blocks before it are in `ids`
);

INSERT INTO gathered VALUES (coalesce((SELECT position + count FROM blocks ORDER BY position DESC LIMIT 1), 0));
