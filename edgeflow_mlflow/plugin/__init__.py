"""What MLflow loads: the app, the stores, the deployments client."""
