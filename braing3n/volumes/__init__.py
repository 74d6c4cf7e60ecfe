"""The packed volume store, its feed and the metadata table."""
