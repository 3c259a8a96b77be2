"""The agent's server beside others: models, peers, load."""
