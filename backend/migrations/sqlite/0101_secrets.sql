-- Master secrets, each sealed with the key-encryption key (backend/src/vault.rs).
CREATE TABLE secrets (
    org        TEXT    NOT NULL,
    purpose    TEXT    NOT NULL,
    sealed     BLOB    NOT NULL,
    PRIMARY KEY (org, purpose)
) STRICT;

-- The epoch from which execution token keys are derived.
CREATE TABLE token_epochs (
    org        TEXT    NOT NULL PRIMARY KEY,
    epoch      INTEGER NOT NULL CHECK (epoch > 0),
    -- Until then tokens of the epoch before are accepted.
    overlap_until_ms INTEGER NOT NULL
) STRICT;
