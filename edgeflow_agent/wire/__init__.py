"""The contract between device and server: the only part of the agent that the server imports."""
