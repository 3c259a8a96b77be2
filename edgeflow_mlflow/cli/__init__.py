"""The edgeflow command."""
