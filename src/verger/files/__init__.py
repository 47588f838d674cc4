"""Paths, filesystems, photo reads, atomic folders and Parquet parts."""
