-- An export reads on from where it is, page by page: without this each page would sort all that are left.
CREATE INDEX events_by_arrival ON events (org, position);
