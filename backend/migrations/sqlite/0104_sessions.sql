-- One-time login links, by the SHA-256 of their token.
CREATE TABLE login_links (
    token_sha256 TEXT    NOT NULL PRIMARY KEY,
    org          TEXT    NOT NULL REFERENCES orgs (id),
    user_id      TEXT    NOT NULL REFERENCES users (id),
    expires_ms   INTEGER NOT NULL,
    used_ms      INTEGER
) STRICT;

-- Signed-in people, by the SHA-256 of the cookie.
CREATE TABLE sessions (
    id             TEXT    NOT NULL PRIMARY KEY,
    secret_sha256  TEXT    NOT NULL UNIQUE,
    org            TEXT    NOT NULL REFERENCES orgs (id),
    user_id        TEXT    NOT NULL REFERENCES users (id),
    created_ms     INTEGER NOT NULL,
    expires_ms     INTEGER NOT NULL,
    ended_ms       INTEGER
) STRICT;
