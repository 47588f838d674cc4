"""``verger inspect``: photos of a result that are worth a second look."""
