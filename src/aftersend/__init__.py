"""What happens to a message after it was sent: one stream of events, kept safely, told in any dialect."""

__version__ = "0.1.0"
