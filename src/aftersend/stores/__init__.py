"""The rack of stores."""
