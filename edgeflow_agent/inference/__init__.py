"""The hot path."""
