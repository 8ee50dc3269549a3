"""The conformance suites that every dialect, store and transport passes; shipped for third parties."""
