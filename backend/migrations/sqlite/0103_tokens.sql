-- Redeemed token ids: insert-if-absent decides who was first. Kept until a token of that id cannot pass
-- verification any more.
CREATE TABLE redemptions (
    org          TEXT    NOT NULL,
    jti          TEXT    NOT NULL,
    redeemed_ms  INTEGER NOT NULL,
    keep_until_ms INTEGER NOT NULL,
    PRIMARY KEY (org, jti)
) STRICT;
CREATE INDEX redemptions_by_age ON redemptions (keep_until_ms);
