"""The public API: typed handles, whose methods lead to where the work is done.

A module imports only what is listed before it:

options: what their methods take by keyword
domain: a domain
host: the domains, networks and pools under one root
"""
