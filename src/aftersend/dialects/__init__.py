"""The rack of dialects: one vendor, one file; bytes to events and back; pure."""
