-- The audit log. Append-only: whoever holds this connection can add, never change or remove.
CREATE TABLE events (
    position    INTEGER PRIMARY KEY AUTOINCREMENT,
    org         TEXT    NOT NULL,
    source      TEXT    NOT NULL,
    seq         INTEGER NOT NULL CHECK (seq > 0),
    hash        TEXT    NOT NULL,
    event_id    TEXT    NOT NULL,
    type        TEXT    NOT NULL,
    time_ms     INTEGER NOT NULL,
    received_ms INTEGER NOT NULL,
    txn         TEXT,
    tenant      TEXT,
    tool        TEXT,
    principal   TEXT,
    decision    TEXT,
    approval    TEXT,
    token_id    TEXT,
    -- The canonical bytes: what the hash is of.
    body        TEXT    NOT NULL,
    UNIQUE (org, source, seq),
    UNIQUE (org, event_id)
) STRICT;

CREATE INDEX events_by_time ON events (org, time_ms DESC, position DESC);
CREATE INDEX events_by_txn ON events (org, txn) WHERE txn IS NOT NULL;
CREATE INDEX events_by_approval ON events (org, approval) WHERE approval IS NOT NULL;
CREATE INDEX events_by_token ON events (org, token_id) WHERE token_id IS NOT NULL;

CREATE TRIGGER events_refuse_update BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;

CREATE TRIGGER events_refuse_delete BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;

-- Where each chain ends.
CREATE TABLE chain_heads (
    org    TEXT    NOT NULL,
    source TEXT    NOT NULL,
    seq    INTEGER NOT NULL,
    hash   TEXT    NOT NULL,
    PRIMARY KEY (org, source)
) STRICT;

CREATE TRIGGER chain_heads_only_grow BEFORE UPDATE ON chain_heads
WHEN NEW.seq <= OLD.seq OR NEW.org <> OLD.org OR NEW.source <> OLD.source
BEGIN SELECT RAISE(ABORT, 'a chain only grows'); END;

CREATE TRIGGER chain_heads_refuse_delete BEFORE DELETE ON chain_heads
BEGIN SELECT RAISE(ABORT, 'a chain only grows'); END;
