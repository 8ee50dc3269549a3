"""The nouns: what an event is, what can happen, what can go wrong. No input or output."""
