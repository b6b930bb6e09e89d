"""Networks of root's for guests of other users: who may plug in, and how they get their taps.

A module imports only what is listed before it:

grants: who may
tap: a tap for a user who is not trusted
handout: the taps that users have
helper: root's helper, which gives them
client: ask the helper, as a user
right: let the helper run as root
"""
