"""MQTT: the embedded broker behind its gatekeeper, and the client of any broker."""
