"""The HTTP surface: the ASGI entry, the API, the pages."""
