"""Where photos come from: listing them, cutting the listing, samples and rendered data."""
