CREATE TABLE approvals (
    id              TEXT    NOT NULL PRIMARY KEY,
    org             TEXT    NOT NULL REFERENCES orgs (id),
    reference       TEXT    NOT NULL UNIQUE,
    status          TEXT    NOT NULL
        CHECK (status IN ('pending', 'approved', 'denied', 'expired', 'cancelled', 'consumed')),
    fingerprint     TEXT    NOT NULL,
    -- Who asks.
    principal       TEXT    NOT NULL,
    -- The person who owns the agent, and therefore may not decide.
    owner           TEXT,
    tenant          TEXT,
    -- What is asked for.
    audience        TEXT    NOT NULL,
    tool            TEXT    NOT NULL,
    resource        TEXT,
    method          TEXT,
    route           TEXT    NOT NULL,
    definition_hash TEXT,
    risk_level      TEXT    NOT NULL CHECK (risk_level IN ('low', 'medium', 'high', 'critical')),
    reason          TEXT,
    -- Why a person is asked.
    resolved_from   TEXT    NOT NULL,
    rule            TEXT,
    policy_version  INTEGER NOT NULL,
    txn             TEXT    NOT NULL,
    -- How many people must approve, one after the other.
    levels          INTEGER NOT NULL CHECK (levels IN (1, 2)),
    created_ms      INTEGER NOT NULL,
    -- Pending until then.
    expires_ms      INTEGER NOT NULL,
    decided_ms      INTEGER,
    decided_by      TEXT,
    note            TEXT,
    -- Approved until then.
    consume_by_ms   INTEGER,
    consumed_txn    TEXT,
    -- When the final state was reached.
    closed_ms       INTEGER
) STRICT;

-- Two creators of the same call get one approval.
CREATE UNIQUE INDEX approvals_open ON approvals (org, fingerprint) WHERE status IN ('pending', 'approved');
CREATE INDEX approvals_by_fingerprint ON approvals (org, fingerprint, created_ms);
CREATE INDEX approvals_by_principal ON approvals (org, principal) WHERE status = 'pending';
CREATE INDEX approvals_pending_deadline ON approvals (expires_ms) WHERE status = 'pending';
CREATE INDEX approvals_approved_deadline ON approvals (consume_by_ms) WHERE status = 'approved';
CREATE INDEX approvals_listed ON approvals (org, id);

-- The state machine: a final state is final, and nothing goes back.
CREATE TRIGGER approvals_move_forward BEFORE UPDATE OF status ON approvals
WHEN NOT (
    (OLD.status = 'pending' AND NEW.status IN ('pending', 'approved', 'denied', 'expired', 'cancelled'))
    OR (OLD.status = 'approved' AND NEW.status IN ('consumed', 'expired', 'cancelled'))
)
BEGIN SELECT RAISE(ABORT, 'an approval does not go back'); END;

-- What binds an approval to its call never changes.
CREATE TRIGGER approvals_keep_their_call
BEFORE UPDATE OF org, fingerprint, principal, owner, tenant, audience, tool, resource, method, levels ON approvals
BEGIN SELECT RAISE(ABORT, 'an approval stays with its call'); END;

-- Who approved; a second level is a second person.
CREATE TABLE approval_votes (
    approval_id TEXT    NOT NULL REFERENCES approvals (id),
    person      TEXT    NOT NULL,
    note        TEXT,
    voted_ms    INTEGER NOT NULL,
    PRIMARY KEY (approval_id, person)
) STRICT;

-- The exact arguments, sealed. Apart from the approval and from the log, so that they can be deleted.
CREATE TABLE approval_arguments (
    approval_id TEXT NOT NULL PRIMARY KEY REFERENCES approvals (id),
    sealed      BLOB NOT NULL
) STRICT;

-- Idempotency keys: which approval a key stands for.
CREATE TABLE approval_keys (
    org         TEXT    NOT NULL,
    principal   TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    fingerprint TEXT    NOT NULL,
    approval_id TEXT    NOT NULL REFERENCES approvals (id),
    used_ms     INTEGER NOT NULL,
    PRIMARY KEY (org, principal, key)
) STRICT;
CREATE INDEX approval_keys_by_age ON approval_keys (used_ms);
