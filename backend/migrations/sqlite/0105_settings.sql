-- Whether a token for a high or critical tool may be minted without the request that it is for.
ALTER TABLE orgs ADD COLUMN unbound_tokens_high_risk BOOLEAN NOT NULL DEFAULT FALSE;
