"""How things reach us that nobody sends as an event: tracking hits, links, mail."""
