"""The verbs between intake and delivery, written against contracts only."""
