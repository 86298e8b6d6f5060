-- The schema as it is on SQLite after its migration of the same number. From here on a migration has a file of its
-- number in both folders.
--
-- Times are milliseconds since 1970. Texts are compared by their bytes, as SQLite compares them: a list is in the
-- same order on both, whatever the language of the database.

CREATE TABLE orgs (
    id TEXT COLLATE "C" PRIMARY KEY,
    -- Grows with every change of anything that reaches a proxy.
    policy_version BIGINT NOT NULL DEFAULT 1,
    -- The version of the last change that was not one of a tenant's rules.
    catalog_version BIGINT NOT NULL DEFAULT 1,
    unregistered TEXT COLLATE "C" NOT NULL DEFAULT 'requires_approval',
    approval_timeout_s BIGINT NOT NULL DEFAULT 3600,
    -- Whether approver keys may decide calls of high and critical tools.
    approver_keys_decide_high_risk BOOLEAN NOT NULL DEFAULT FALSE,
    created_at BIGINT NOT NULL,
    unbound_tokens_high_risk BOOLEAN NOT NULL DEFAULT FALSE,
    changed_definition TEXT COLLATE "C" NOT NULL DEFAULT 'requires_approval'
);

CREATE TABLE users (
    id TEXT COLLATE "C" PRIMARY KEY,
    org TEXT COLLATE "C" NOT NULL REFERENCES orgs (id),
    email TEXT COLLATE "C" NOT NULL,
    role TEXT COLLATE "C" NOT NULL CHECK (role IN ('owner', 'admin', 'approver', 'viewer')),
    created_at BIGINT NOT NULL,
    UNIQUE (org, email)
);

CREATE TABLE tenants (
    org TEXT COLLATE "C" NOT NULL REFERENCES orgs (id),
    id TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    -- The policy version of the last change of its rules.
    rules_version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (org, id)
);

CREATE TABLE categories (
    org TEXT COLLATE "C" NOT NULL REFERENCES orgs (id),
    name TEXT COLLATE "C" NOT NULL,
    default_permission TEXT COLLATE "C",
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (org, name)
);

CREATE TABLE tools (
    org TEXT COLLATE "C" NOT NULL REFERENCES orgs (id),
    name TEXT COLLATE "C" NOT NULL,
    audience TEXT COLLATE "C" NOT NULL,
    -- `draft`: seen, not registered; it takes no part in decisions.
    status TEXT COLLATE "C" NOT NULL CHECK (status IN ('active', 'draft')),
    description TEXT COLLATE "C" NOT NULL DEFAULT '',
    category TEXT COLLATE "C",
    risk_level TEXT COLLATE "C" NOT NULL,
    parameter_schema TEXT COLLATE "C",
    default_permission TEXT COLLATE "C",
    approved BOOLEAN NOT NULL DEFAULT FALSE,
    enabled BOOLEAN NOT NULL DEFAULT TRUE,
    resource TEXT COLLATE "C" NOT NULL DEFAULT 'optional',
    approval_timeout_s BIGINT,
    approval_levels BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (org, name, audience),
    FOREIGN KEY (org, category) REFERENCES categories (org, name)
);
CREATE UNIQUE INDEX tools_active ON tools (org, name) WHERE status = 'active';

CREATE TABLE rules (
    id TEXT COLLATE "C" PRIMARY KEY,
    org TEXT COLLATE "C" NOT NULL REFERENCES orgs (id),
    tenant TEXT COLLATE "C",
    resource TEXT COLLATE "C",
    tool TEXT COLLATE "C",
    method TEXT COLLATE "C",
    permission TEXT COLLATE "C" NOT NULL,
    guardrail BOOLEAN NOT NULL DEFAULT FALSE,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    FOREIGN KEY (org, tenant) REFERENCES tenants (org, id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX rules_selector ON rules (
    org, COALESCE(tenant, ''), COALESCE(resource, ''), COALESCE(tool, ''), COALESCE(method, '')
);
CREATE INDEX rules_scope ON rules (org, tenant, id);

CREATE TABLE kill_switches (
    org TEXT COLLATE "C" NOT NULL REFERENCES orgs (id),
    scope TEXT COLLATE "C" NOT NULL CHECK (scope IN ('org', 'tenant', 'agent', 'tool')),
    -- '' for the org itself.
    target TEXT COLLATE "C" NOT NULL,
    reason TEXT COLLATE "C" NOT NULL DEFAULT '',
    created_by TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (org, scope, target)
);

CREATE TABLE agents (
    org TEXT COLLATE "C" NOT NULL REFERENCES orgs (id),
    id TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    -- E-mail of the person who answers for it, and who may not approve its calls.
    owner TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    -- A deleted agent keeps its row: the audit log names it, and its id is never given again.
    deleted_at BIGINT,
    PRIMARY KEY (org, id)
);

CREATE TABLE keys (
    id TEXT COLLATE "C" PRIMARY KEY,
    org TEXT COLLATE "C" NOT NULL REFERENCES orgs (id),
    kind TEXT COLLATE "C" NOT NULL CHECK (kind IN ('management', 'standard', 'agent', 'approver', 'tool', 'proxy')),
    -- SHA-256 of the whole key, hex; the key itself is stored nowhere.
    hash TEXT COLLATE "C" NOT NULL UNIQUE,
    -- Its first characters, for display.
    prefix TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    -- wire::Tenancy as JSON.
    tenancy TEXT COLLATE "C" NOT NULL,
    agent TEXT COLLATE "C",
    user_id TEXT COLLATE "C" REFERENCES users (id),
    -- E-mail of the person who answers for a key without an agent.
    owner TEXT COLLATE "C",
    -- Of a tool server's key.
    audience TEXT COLLATE "C",
    proxy_id TEXT COLLATE "C",
    created_by TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT,
    last_used_at BIGINT,
    FOREIGN KEY (org, agent) REFERENCES agents (org, id)
);
CREATE INDEX keys_org ON keys (org, id);

CREATE TABLE join_tokens (
    hash TEXT COLLATE "C" PRIMARY KEY,
    org TEXT COLLATE "C" NOT NULL REFERENCES orgs (id),
    audiences TEXT COLLATE "C" NOT NULL,
    tenants TEXT COLLATE "C",
    created_by TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT
);

CREATE TABLE proxies (
    id TEXT COLLATE "C" PRIMARY KEY,
    org TEXT COLLATE "C" NOT NULL REFERENCES orgs (id),
    name TEXT COLLATE "C" NOT NULL,
    public_key TEXT COLLATE "C" NOT NULL,
    audiences TEXT COLLATE "C" NOT NULL,
    tenants TEXT COLLATE "C",
    version TEXT COLLATE "C" NOT NULL,
    enrolled_at BIGINT NOT NULL,
    revoked_at BIGINT,
    -- The last heartbeat.
    seen_at BIGINT,
    policy_version BIGINT,
    spool_depth BIGINT,
    head_seq BIGINT,
    head_hash TEXT COLLATE "C",
    held_calls BIGINT
);
CREATE INDEX proxies_org ON proxies (org, id);

CREATE TABLE feed (
    seq BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    org TEXT COLLATE "C" NOT NULL REFERENCES orgs (id),
    change TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL
);
CREATE INDEX feed_org ON feed (org, seq);

CREATE TABLE events (
    position BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    org TEXT COLLATE "C" NOT NULL,
    source TEXT COLLATE "C" NOT NULL,
    seq BIGINT NOT NULL CHECK (seq > 0),
    hash TEXT COLLATE "C" NOT NULL,
    event_id TEXT COLLATE "C" NOT NULL,
    type TEXT COLLATE "C" NOT NULL,
    time_ms BIGINT NOT NULL,
    received_ms BIGINT NOT NULL,
    txn TEXT COLLATE "C",
    tenant TEXT COLLATE "C",
    tool TEXT COLLATE "C",
    principal TEXT COLLATE "C",
    decision TEXT COLLATE "C",
    approval TEXT COLLATE "C",
    token_id TEXT COLLATE "C",
    -- The canonical bytes: what the hash is of.
    body TEXT COLLATE "C" NOT NULL,
    result TEXT COLLATE "C",
    UNIQUE (org, source, seq),
    UNIQUE (org, event_id)
);
CREATE INDEX events_by_time ON events (org, time_ms DESC, position DESC);
CREATE INDEX events_by_txn ON events (org, txn) WHERE txn IS NOT NULL;
CREATE INDEX events_by_approval ON events (org, approval) WHERE approval IS NOT NULL;
CREATE INDEX events_by_token ON events (org, token_id) WHERE token_id IS NOT NULL;
CREATE INDEX events_by_principal ON events (org, principal, position) WHERE principal IS NOT NULL;
CREATE INDEX events_by_arrival ON events (org, position);

CREATE TABLE chain_heads (
    org TEXT COLLATE "C" NOT NULL,
    source TEXT COLLATE "C" NOT NULL,
    seq BIGINT NOT NULL,
    hash TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (org, source)
);

CREATE TABLE secrets (
    org TEXT COLLATE "C" NOT NULL,
    purpose TEXT COLLATE "C" NOT NULL,
    sealed BYTEA NOT NULL,
    PRIMARY KEY (org, purpose)
);

CREATE TABLE token_epochs (
    org TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    epoch BIGINT NOT NULL CHECK (epoch > 0),
    -- Until then tokens of the epoch before are accepted.
    overlap_until_ms BIGINT NOT NULL
);

CREATE TABLE approvals (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    org TEXT COLLATE "C" NOT NULL REFERENCES orgs (id),
    reference TEXT COLLATE "C" NOT NULL UNIQUE,
    status TEXT COLLATE "C" NOT NULL
        CHECK (status IN ('pending', 'approved', 'denied', 'expired', 'cancelled', 'consumed')),
    fingerprint TEXT COLLATE "C" NOT NULL,
    -- Who asks.
    principal TEXT COLLATE "C" NOT NULL,
    -- The person who owns the agent, and therefore may not decide.
    owner TEXT COLLATE "C",
    tenant TEXT COLLATE "C",
    -- What is asked for.
    audience TEXT COLLATE "C" NOT NULL,
    tool TEXT COLLATE "C" NOT NULL,
    resource TEXT COLLATE "C",
    method TEXT COLLATE "C",
    route TEXT COLLATE "C" NOT NULL,
    definition_hash TEXT COLLATE "C",
    risk_level TEXT COLLATE "C" NOT NULL CHECK (risk_level IN ('low', 'medium', 'high', 'critical')),
    reason TEXT COLLATE "C",
    -- Why a person is asked.
    resolved_from TEXT COLLATE "C" NOT NULL,
    rule TEXT COLLATE "C",
    policy_version BIGINT NOT NULL,
    txn TEXT COLLATE "C" NOT NULL,
    -- How many people must approve, one after the other.
    levels BIGINT NOT NULL CHECK (levels IN (1, 2)),
    created_ms BIGINT NOT NULL,
    -- Pending until then.
    expires_ms BIGINT NOT NULL,
    decided_ms BIGINT,
    decided_by TEXT COLLATE "C",
    note TEXT COLLATE "C",
    -- Approved until then.
    consume_by_ms BIGINT,
    consumed_txn TEXT COLLATE "C",
    -- When the final state was reached.
    closed_ms BIGINT,
    consumed_proxy TEXT COLLATE "C"
);
CREATE UNIQUE INDEX approvals_open ON approvals (org, fingerprint) WHERE status IN ('pending', 'approved');
CREATE INDEX approvals_by_fingerprint ON approvals (org, fingerprint, created_ms);
CREATE INDEX approvals_by_principal ON approvals (org, principal) WHERE status = 'pending';
CREATE INDEX approvals_pending_deadline ON approvals (expires_ms) WHERE status = 'pending';
CREATE INDEX approvals_approved_deadline ON approvals (consume_by_ms) WHERE status = 'approved';
CREATE INDEX approvals_listed ON approvals (org, id);

CREATE TABLE approval_keys (
    org TEXT COLLATE "C" NOT NULL,
    principal TEXT COLLATE "C" NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    fingerprint TEXT COLLATE "C" NOT NULL,
    approval_id TEXT COLLATE "C" NOT NULL REFERENCES approvals (id),
    used_ms BIGINT NOT NULL,
    PRIMARY KEY (org, principal, key)
);
CREATE INDEX approval_keys_by_age ON approval_keys (used_ms);

CREATE TABLE redemptions (
    org TEXT COLLATE "C" NOT NULL,
    jti TEXT COLLATE "C" NOT NULL,
    redeemed_ms BIGINT NOT NULL,
    keep_until_ms BIGINT NOT NULL,
    PRIMARY KEY (org, jti)
);
CREATE INDEX redemptions_by_age ON redemptions (keep_until_ms);

CREATE TABLE login_links (
    token_sha256 TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    org TEXT COLLATE "C" NOT NULL REFERENCES orgs (id),
    user_id TEXT COLLATE "C" NOT NULL REFERENCES users (id),
    expires_ms BIGINT NOT NULL,
    used_ms BIGINT
);

CREATE TABLE sessions (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    secret_sha256 TEXT COLLATE "C" NOT NULL UNIQUE,
    org TEXT COLLATE "C" NOT NULL REFERENCES orgs (id),
    user_id TEXT COLLATE "C" NOT NULL REFERENCES users (id),
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL,
    ended_ms BIGINT
);

CREATE TABLE tool_definitions (
    org TEXT COLLATE "C" NOT NULL REFERENCES orgs (id),
    audience TEXT COLLATE "C" NOT NULL,
    tool TEXT COLLATE "C" NOT NULL,
    pinned_sha256 TEXT COLLATE "C" NOT NULL,
    -- JSON; NULL when it was too large to be kept.
    pinned_definition TEXT COLLATE "C",
    -- Who accepted it; NULL at first sight.
    pinned_by TEXT COLLATE "C",
    pinned_at BIGINT NOT NULL,
    served_sha256 TEXT COLLATE "C" NOT NULL,
    served_definition TEXT COLLATE "C",
    -- The proxy that saw it.
    served_through TEXT COLLATE "C" NOT NULL,
    served_at BIGINT NOT NULL,
    PRIMARY KEY (org, audience, tool)
);
CREATE INDEX tool_definitions_changed ON tool_definitions (org, audience, tool)
    WHERE pinned_sha256 <> served_sha256;

CREATE TABLE announced_heads (
    org TEXT COLLATE "C" NOT NULL,
    source TEXT COLLATE "C" NOT NULL,
    seq BIGINT NOT NULL,
    hash TEXT COLLATE "C" NOT NULL,
    announced_ms BIGINT NOT NULL,
    PRIMARY KEY (org, source, seq)
);

CREATE TABLE approval_votes (
    org TEXT COLLATE "C" NOT NULL REFERENCES orgs (id),
    approval_id TEXT COLLATE "C" NOT NULL REFERENCES approvals (id),
    person TEXT COLLATE "C" NOT NULL,
    note TEXT COLLATE "C",
    voted_ms BIGINT NOT NULL,
    PRIMARY KEY (approval_id, person)
);

CREATE TABLE approval_arguments (
    org TEXT COLLATE "C" NOT NULL REFERENCES orgs (id),
    approval_id TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES approvals (id),
    sealed BYTEA NOT NULL
);

CREATE TABLE feed_heads (
    org TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES orgs (id),
    seq BIGINT NOT NULL
);

CREATE TABLE vault_keys (
    fingerprint TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    since_ms BIGINT NOT NULL
);

-- What is recorded stays.
CREATE FUNCTION oakallow_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%', TG_ARGV[0];
END $$;

CREATE TRIGGER events_refuse_change BEFORE UPDATE OR DELETE ON events
    FOR EACH ROW EXECUTE FUNCTION oakallow_refuse('the audit log is append-only');
CREATE TRIGGER events_refuse_truncate BEFORE TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION oakallow_refuse('the audit log is append-only');

CREATE TRIGGER chain_heads_only_grow BEFORE UPDATE ON chain_heads FOR EACH ROW
    WHEN (NEW.seq <= OLD.seq OR NEW.org <> OLD.org OR NEW.source <> OLD.source)
    EXECUTE FUNCTION oakallow_refuse('a chain only grows');
CREATE TRIGGER chain_heads_refuse_delete BEFORE DELETE ON chain_heads
    FOR EACH ROW EXECUTE FUNCTION oakallow_refuse('a chain only grows');
CREATE TRIGGER chain_heads_refuse_truncate BEFORE TRUNCATE ON chain_heads
    FOR EACH STATEMENT EXECUTE FUNCTION oakallow_refuse('a chain only grows');

-- The state machine: a final state is final, and nothing goes back.
CREATE TRIGGER approvals_move_forward BEFORE UPDATE OF status ON approvals FOR EACH ROW
    WHEN (NOT (
        (OLD.status = 'pending' AND NEW.status IN ('pending', 'approved', 'denied', 'expired', 'cancelled'))
        OR (OLD.status = 'approved' AND NEW.status IN ('consumed', 'expired', 'cancelled'))
    ))
    EXECUTE FUNCTION oakallow_refuse('an approval does not go back');

-- What binds an approval to its call never changes.
CREATE TRIGGER approvals_keep_their_call
    BEFORE UPDATE OF org, fingerprint, principal, owner, tenant, audience, tool, resource, method, levels ON approvals
    FOR EACH ROW EXECUTE FUNCTION oakallow_refuse('an approval stays with its call');

-- The second wall between orgs, behind the org that every query names. A connection says for which org it is
-- (`oakallow.org`), or that it is for what is of none (`oakallow.across`): a query that forgets the org finds what is
-- of that org, and a connection that says nothing finds nothing. Every later table with an org is walled in by the
-- migration that creates it: SELECT oakallow_wall('grants');
CREATE FUNCTION oakallow_wall(walled regclass, owner name DEFAULT 'org') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', walled);
    -- Of the table's owner too, who the backend is.
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', walled);
    EXECUTE format(
        'CREATE POLICY own_org ON %s USING (%I = current_setting(''oakallow.org'', true)'
        ' OR current_setting(''oakallow.across'', true) = ''on'')', walled, owner);
END $$;

SELECT oakallow_wall('orgs', 'id');
SELECT oakallow_wall('users');
SELECT oakallow_wall('tenants');
SELECT oakallow_wall('categories');
SELECT oakallow_wall('tools');
SELECT oakallow_wall('rules');
SELECT oakallow_wall('kill_switches');
SELECT oakallow_wall('agents');
SELECT oakallow_wall('keys');
SELECT oakallow_wall('join_tokens');
SELECT oakallow_wall('proxies');
SELECT oakallow_wall('feed');
SELECT oakallow_wall('events');
SELECT oakallow_wall('chain_heads');
SELECT oakallow_wall('secrets');
SELECT oakallow_wall('token_epochs');
SELECT oakallow_wall('approvals');
SELECT oakallow_wall('approval_keys');
SELECT oakallow_wall('redemptions');
SELECT oakallow_wall('login_links');
SELECT oakallow_wall('sessions');
SELECT oakallow_wall('tool_definitions');
SELECT oakallow_wall('announced_heads');
SELECT oakallow_wall('approval_votes');
SELECT oakallow_wall('approval_arguments');
SELECT oakallow_wall('feed_heads');
