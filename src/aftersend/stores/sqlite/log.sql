-- Statements on a file of the log.

-- name: insert_meta
INSERT INTO meta (first_position, first_number, created_at) VALUES (?, ?, ?)

-- name: start_numbers
INSERT INTO sqlite_sequence (name, seq) VALUES ('quarantine', ?)

-- name: meta
SELECT first_position, first_number, created_at FROM meta

-- name: touch
UPDATE meta SET created_at = created_at

-- name: end
SELECT position + count FROM blocks ORDER BY position DESC LIMIT 1

-- name: last_number
SELECT seq FROM sqlite_sequence WHERE name = 'quarantine'

-- name: days
SELECT day, lowest, highest FROM days

-- name: put_day
INSERT OR REPLACE INTO days (day, lowest, highest) VALUES (?, ?, ?)

-- name: add_ids
INSERT OR IGNORE INTO ids (id) SELECT value FROM carray(?)

-- name: highest_id
SELECT max(id) FROM ids

-- name: ungathered
SELECT body FROM blocks WHERE position >= (SELECT position FROM gathered)

-- name: move_gathered
UPDATE gathered SET position = ?

-- name: known_ids
SELECT ids.id FROM carray(?) AS asked JOIN ids ON ids.id = asked.value

-- name: insert_block
INSERT INTO blocks (position, tenant, count, received_at, body) VALUES (?, ?, ?, ?, ?)

-- name: block
SELECT tenant, count FROM blocks WHERE position = ?

-- name: rewrite_block
UPDATE blocks SET body = ? WHERE position = ?

-- name: read_blocks
SELECT position, tenant, body FROM blocks
WHERE position >= coalesce((SELECT max(position) FROM blocks WHERE position <= :position), 0) AND position < :head
ORDER BY position

-- name: position_at
SELECT position FROM blocks WHERE received_at >= ? ORDER BY position LIMIT 1

-- name: insert_quarantined
INSERT INTO quarantine (tenant, source, dialect, reason, detail, received_at, body, content_type, form)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: count_quarantined
SELECT tenant, source, count(*) FROM quarantine GROUP BY tenant, source

-- name: list_quarantined
SELECT number, tenant, source, dialect, reason, detail, received_at, body, content_type, form FROM quarantine
WHERE number > :after AND (:tenant IS NULL OR tenant = :tenant)
ORDER BY number LIMIT :limit

-- name: discard
DELETE FROM quarantine WHERE number = ? RETURNING tenant, source

-- name: discard_oldest
DELETE FROM quarantine WHERE number IN (
    SELECT number FROM quarantine WHERE tenant = ? AND source = ? ORDER BY number LIMIT ?
)

-- name: insert_request
INSERT OR IGNORE INTO requests (key, received_at, answer, accepted, duplicates) VALUES (?, ?, ?, ?, ?)

-- name: find_request
SELECT key, received_at, answer, accepted, duplicates FROM requests WHERE key = ?

-- name: has_file_requests
SELECT EXISTS (SELECT 1 FROM requests WHERE key >= 'file:' AND key < 'file;')

-- name: forget_requests
DELETE FROM requests WHERE received_at < ? AND NOT (key >= 'file:' AND key < 'file;')
