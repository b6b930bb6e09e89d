"""The verbs on one domain, one noun a file."""
