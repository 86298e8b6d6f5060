-- Ends of chains that proxies announced with a heartbeat, before the events up to there have come: what comes in
-- these places has to be what was announced.
CREATE TABLE announced_heads (
    org          TEXT    NOT NULL,
    source       TEXT    NOT NULL,
    seq          INTEGER NOT NULL,
    hash         TEXT    NOT NULL,
    announced_ms INTEGER NOT NULL,
    PRIMARY KEY (org, source, seq)
) STRICT;
