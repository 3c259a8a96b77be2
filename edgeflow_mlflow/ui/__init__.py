"""The built page of the Edgeflow tab."""
