"""The job: its stages in order, its record, resuming, validation and the report."""
