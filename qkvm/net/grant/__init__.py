"""Networks of root's for guests of other users: who may plug in, and how they get their taps.

A module imports only what is listed before it:

grants: who may
tap: a tap that can be given to a user who is not trusted
handout: taps that were given
helper: root's helper, which gives them
client: the user's side of it
right: what gives the helper root's rights
"""
