"""What a result consists of: the layout of OUT, the journal, the lock and the ledger."""
