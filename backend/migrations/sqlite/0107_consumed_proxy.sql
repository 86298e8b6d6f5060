-- The proxy that consumed it: it may ask again when the answer was lost, and only it knows whether the
-- call was sent.
ALTER TABLE approvals ADD COLUMN consumed_proxy TEXT;
