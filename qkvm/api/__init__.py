"""The public API: hosts, domains and what they have, as typed objects."""
