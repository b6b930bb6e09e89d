"""What is kept of a domain's snapshots and checkpoints.

A module imports only what is listed before it:

lineage: which of them comes from which
snapshots, checkpoints: their files
"""
