"""The Flask blueprint under /api/v1."""
