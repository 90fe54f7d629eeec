"""One file for each public set: `read(raw, problems)` yields its studies, in an order that does not change."""
