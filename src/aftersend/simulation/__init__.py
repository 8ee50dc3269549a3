"""A simulated world around an instance: a campaign, the vendors that tell of it, senders, receivers and the server."""
