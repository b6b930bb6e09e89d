"""Tables of verbs on the shell, one for each module of qkvm.cli.shell that has verbs; none imports another.

completion, help, itself: constants
"""
