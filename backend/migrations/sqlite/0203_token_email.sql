-- The e-mail in the token by which was asked, whether or not anybody vouches for it: whoever has it does not decide.
ALTER TABLE approvals ADD COLUMN token_email TEXT;

DROP TRIGGER approvals_keep_their_call;
CREATE TRIGGER approvals_keep_their_call
BEFORE UPDATE OF org, fingerprint, principal, owner, token_email, tenant, audience, tool, resource, method, levels
ON approvals
BEGIN SELECT RAISE(ABORT, 'an approval stays with its call'); END;
