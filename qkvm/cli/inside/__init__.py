"""Verbs that lead into a guest.

A module imports only what is listed before it:

access: ways into guests: exec, ssh, cp
run: a guest with its console or a command in it, gone when it ends
"""
