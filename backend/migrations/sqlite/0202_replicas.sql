-- Where each org's feed ends. Whoever follows the feeds of all orgs compares these with what they have seen.
CREATE TABLE feed_heads (
    org TEXT    NOT NULL PRIMARY KEY REFERENCES orgs (id),
    seq INTEGER NOT NULL
) STRICT;
INSERT INTO feed_heads (org, seq) SELECT org, MAX(seq) FROM feed GROUP BY org;

-- The key-encryption key that this database belongs to, by a hash of it: a backend with another one would seal what
-- the others cannot open.
CREATE TABLE vault_keys (
    fingerprint TEXT    NOT NULL PRIMARY KEY,
    since_ms    INTEGER NOT NULL
) STRICT;
