-- Every row says whose it is.
CREATE TABLE votes_with_org (
    org         TEXT    NOT NULL REFERENCES orgs (id),
    approval_id TEXT    NOT NULL REFERENCES approvals (id),
    person      TEXT    NOT NULL,
    note        TEXT,
    voted_ms    INTEGER NOT NULL,
    PRIMARY KEY (approval_id, person)
) STRICT;
INSERT INTO votes_with_org (org, approval_id, person, note, voted_ms)
    SELECT a.org, v.approval_id, v.person, v.note, v.voted_ms
    FROM approval_votes v JOIN approvals a ON a.id = v.approval_id;
DROP TABLE approval_votes;
ALTER TABLE votes_with_org RENAME TO approval_votes;

CREATE TABLE arguments_with_org (
    org         TEXT NOT NULL REFERENCES orgs (id),
    approval_id TEXT NOT NULL PRIMARY KEY REFERENCES approvals (id),
    sealed      BLOB NOT NULL
) STRICT;
INSERT INTO arguments_with_org (org, approval_id, sealed)
    SELECT a.org, g.approval_id, g.sealed
    FROM approval_arguments g JOIN approvals a ON a.id = g.approval_id;
DROP TABLE approval_arguments;
ALTER TABLE arguments_with_org RENAME TO approval_arguments;
