"""The report of a result: one offline HTML page, and the same as JSON."""
