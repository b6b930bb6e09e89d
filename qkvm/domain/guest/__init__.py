"""What the agent in a guest does.

A module imports only what is listed before it:

agent: a session with it
clock, cpus, info, power, users: one thing each that it is asked for
filesystems: frozen, thawed, trimmed
"""
