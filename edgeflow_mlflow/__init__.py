"""The server side of Edgeflow: an MLflow plugin that adds the fleet."""
