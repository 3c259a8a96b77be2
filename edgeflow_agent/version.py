"""The one place that says which Edgeflow this is: both wheels read it."""

VERSION = "0.1.0"
