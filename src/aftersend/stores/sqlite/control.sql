-- Statements on control.db. A subscription's lines are its id and `id/WORD`; `0` is the character after `/`.

-- name: put_record
INSERT OR REPLACE INTO registry (kind, tenant, name, body) VALUES (?, ?, ?, ?)

-- name: list_records
SELECT tenant, name, body FROM registry WHERE kind = :kind AND (:tenant IS NULL OR tenant = :tenant)

-- name: all_records
SELECT kind, tenant, name, body FROM registry

-- name: remove_record
DELETE FROM registry WHERE kind = ? AND tenant = ? AND name = ? RETURNING 1

-- name: get_cursor
SELECT position, epoch, sequence FROM cursors WHERE subscription = ?

-- name: put_cursor
INSERT OR REPLACE INTO cursors (subscription, position, epoch, sequence) VALUES (?, ?, ?, ?)

-- name: forget_cursors
DELETE FROM cursors WHERE subscription = :id OR (subscription > :id || '/' AND subscription < :id || '0')

-- name: put_set_aside
INSERT OR REPLACE INTO set_aside (subscription, position, state, next_at, body) VALUES (?, ?, ?, ?, ?)

-- name: due
SELECT body FROM set_aside
WHERE subscription = ? AND state = 'late' AND next_at > 0 AND next_at <= ?
ORDER BY position LIMIT ?

-- name: list_set_aside
SELECT body FROM set_aside WHERE subscription = ? ORDER BY position LIMIT ?

-- name: forget_set_aside
DELETE FROM set_aside WHERE subscription = ? AND position = ?

-- name: forget_all_set_aside
DELETE FROM set_aside WHERE subscription = :id OR (subscription > :id || '/' AND subscription < :id || '0')

-- name: put_manifest
INSERT OR REPLACE INTO manifests (subscription, day, epoch, body) VALUES (?, ?, ?, ?)

-- name: list_manifests
SELECT body FROM manifests WHERE subscription = :subscription AND (:day = '' OR day = :day)
ORDER BY day DESC, epoch DESC

-- name: forget_manifests
DELETE FROM manifests WHERE subscription = :id OR (subscription > :id || '/' AND subscription < :id || '0')

-- name: put_lease
INSERT OR REPLACE INTO leases (subscription, id, body) VALUES (?, ?, ?)

-- name: list_leases
SELECT body FROM leases WHERE subscription = ? ORDER BY id

-- name: forget_lease
DELETE FROM leases WHERE subscription = ? AND id = ?

-- name: forget_leases
DELETE FROM leases WHERE subscription = :id

-- name: keys
SELECT id, fingerprint FROM keys

-- name: put_key
INSERT OR IGNORE INTO keys (id, fingerprint) VALUES (?, ?)
