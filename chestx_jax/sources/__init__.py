"""Public data sets as they lie on disk, read into studies: one file a set in `sets/`, listed in `catalog.py`."""
