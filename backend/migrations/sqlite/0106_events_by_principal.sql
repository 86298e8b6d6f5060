-- A caller's own executions are found without reading everybody's.
CREATE INDEX events_by_principal ON events (org, principal, position) WHERE principal IS NOT NULL;
