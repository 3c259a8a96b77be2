"""Where models come from and which devices they reached, from the frozen facts of our own tables."""
