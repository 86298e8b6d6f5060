-- Times are milliseconds since 1970. Every table but `join_tokens` and `proxies` hangs on an org, and
-- every query names it.

CREATE TABLE orgs (
    id TEXT PRIMARY KEY,
    -- Grows with every change of anything that reaches a proxy.
    policy_version BIGINT NOT NULL DEFAULT 1,
    -- The version of the last change that was not one of a tenant's rules.
    catalog_version BIGINT NOT NULL DEFAULT 1,
    unregistered TEXT NOT NULL DEFAULT 'requires_approval',
    approval_timeout_s BIGINT NOT NULL DEFAULT 3600,
    -- Whether approver keys may decide calls of high and critical tools.
    approver_keys_decide_high_risk BOOLEAN NOT NULL DEFAULT FALSE,
    created_at BIGINT NOT NULL
);

CREATE TABLE users (
    id TEXT PRIMARY KEY,
    org TEXT NOT NULL REFERENCES orgs (id),
    email TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('owner', 'admin', 'approver', 'viewer')),
    created_at BIGINT NOT NULL,
    UNIQUE (org, email)
);

CREATE TABLE tenants (
    org TEXT NOT NULL REFERENCES orgs (id),
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    -- The policy version of the last change of its rules.
    rules_version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (org, id)
);

CREATE TABLE categories (
    org TEXT NOT NULL REFERENCES orgs (id),
    name TEXT NOT NULL,
    default_permission TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (org, name)
);

CREATE TABLE tools (
    org TEXT NOT NULL REFERENCES orgs (id),
    name TEXT NOT NULL,
    audience TEXT NOT NULL,
    -- `draft`: seen, not registered; it takes no part in decisions.
    status TEXT NOT NULL CHECK (status IN ('active', 'draft')),
    description TEXT NOT NULL DEFAULT '',
    category TEXT,
    risk_level TEXT NOT NULL,
    parameter_schema TEXT,
    default_permission TEXT,
    approved BOOLEAN NOT NULL DEFAULT FALSE,
    enabled BOOLEAN NOT NULL DEFAULT TRUE,
    resource TEXT NOT NULL DEFAULT 'optional',
    approval_timeout_s BIGINT,
    approval_levels BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (org, name, audience),
    FOREIGN KEY (org, category) REFERENCES categories (org, name)
);
-- A registered tool's name is unique in the org; drafts of other audiences may share it.
CREATE UNIQUE INDEX tools_active ON tools (org, name) WHERE status = 'active';

CREATE TABLE rules (
    id TEXT PRIMARY KEY,
    org TEXT NOT NULL REFERENCES orgs (id),
    tenant TEXT,
    resource TEXT,
    tool TEXT,
    method TEXT,
    permission TEXT NOT NULL,
    guardrail BOOLEAN NOT NULL DEFAULT FALSE,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    FOREIGN KEY (org, tenant) REFERENCES tenants (org, id) ON DELETE CASCADE
);
-- Names are never empty, so '' stands for "not named".
CREATE UNIQUE INDEX rules_selector ON rules (
    org, COALESCE(tenant, ''), COALESCE(resource, ''), COALESCE(tool, ''), COALESCE(method, '')
);
CREATE INDEX rules_scope ON rules (org, tenant, id);

CREATE TABLE kill_switches (
    org TEXT NOT NULL REFERENCES orgs (id),
    scope TEXT NOT NULL CHECK (scope IN ('org', 'tenant', 'agent', 'tool')),
    -- '' for the org itself.
    target TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (org, scope, target)
);

CREATE TABLE agents (
    org TEXT NOT NULL REFERENCES orgs (id),
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    -- E-mail of the person who answers for it, and who may not approve its calls.
    owner TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    -- A deleted agent keeps its row: the audit log names it, and its id is never given again.
    deleted_at BIGINT,
    PRIMARY KEY (org, id)
);

CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    org TEXT NOT NULL REFERENCES orgs (id),
    kind TEXT NOT NULL CHECK (kind IN ('management', 'standard', 'agent', 'approver', 'tool', 'proxy')),
    -- SHA-256 of the whole key, hex; the key itself is stored nowhere.
    hash TEXT NOT NULL UNIQUE,
    -- Its first characters, for display.
    prefix TEXT NOT NULL,
    name TEXT NOT NULL,
    -- wire::Tenancy as JSON.
    tenancy TEXT NOT NULL,
    agent TEXT,
    user_id TEXT REFERENCES users (id),
    -- E-mail of the person who answers for a key without an agent.
    owner TEXT,
    -- Of a tool server's key.
    audience TEXT,
    proxy_id TEXT,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT,
    last_used_at BIGINT,
    FOREIGN KEY (org, agent) REFERENCES agents (org, id)
);
CREATE INDEX keys_org ON keys (org, id);

CREATE TABLE join_tokens (
    hash TEXT PRIMARY KEY,
    org TEXT NOT NULL REFERENCES orgs (id),
    audiences TEXT NOT NULL,
    tenants TEXT,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT
);

CREATE TABLE proxies (
    id TEXT PRIMARY KEY,
    org TEXT NOT NULL REFERENCES orgs (id),
    name TEXT NOT NULL,
    public_key TEXT NOT NULL,
    audiences TEXT NOT NULL,
    tenants TEXT,
    version TEXT NOT NULL,
    enrolled_at BIGINT NOT NULL,
    revoked_at BIGINT,
    -- The last heartbeat.
    seen_at BIGINT,
    policy_version BIGINT,
    spool_depth BIGINT,
    head_seq BIGINT,
    head_hash TEXT,
    held_calls BIGINT
);
CREATE INDEX proxies_org ON proxies (org, id);

-- AUTOINCREMENT: a number is never used twice, also after old lines are deleted.
CREATE TABLE feed (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    org TEXT NOT NULL REFERENCES orgs (id),
    change TEXT NOT NULL,
    at BIGINT NOT NULL
);
CREATE INDEX feed_org ON feed (org, seq);
