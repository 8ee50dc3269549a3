"""A demonstration: a simulated campaign told by six vendors, and two receivers with troubles of their own."""
