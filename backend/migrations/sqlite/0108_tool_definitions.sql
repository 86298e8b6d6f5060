-- What tool servers say their tools are, as proxies saw it: what was pinned, and what is served now.
CREATE TABLE tool_definitions (
    org TEXT NOT NULL REFERENCES orgs (id),
    audience TEXT NOT NULL,
    tool TEXT NOT NULL,
    pinned_sha256 TEXT NOT NULL,
    -- JSON; NULL when it was too large to be kept.
    pinned_definition TEXT,
    -- Who accepted it; NULL at first sight.
    pinned_by TEXT,
    pinned_at BIGINT NOT NULL,
    served_sha256 TEXT NOT NULL,
    served_definition TEXT,
    -- The proxy that saw it.
    served_through TEXT NOT NULL,
    served_at BIGINT NOT NULL,
    PRIMARY KEY (org, audience, tool)
);

CREATE INDEX tool_definitions_changed ON tool_definitions (org, audience, tool)
    WHERE pinned_sha256 <> served_sha256;

-- What becomes of an `allowed` for a tool whose definition is not the pinned one.
ALTER TABLE orgs ADD COLUMN changed_definition TEXT NOT NULL DEFAULT 'requires_approval';
