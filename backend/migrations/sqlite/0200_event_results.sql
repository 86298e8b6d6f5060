-- What an execution came to, beside the other columns that an event is found by: reading it out of the body takes
-- a function that each database names differently.
ALTER TABLE events ADD COLUMN result TEXT;

DROP TRIGGER events_refuse_update;
UPDATE events SET result = json_extract(body, '$.data.execution.result');
CREATE TRIGGER events_refuse_update BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
