"""Talking to the server: MQTT, HTTP, downloads."""
