"""Tables of verbs on pools and volumes, one for each module of qkvm.cli.storage that has verbs; none imports another.

pools, volumes: constants
"""
