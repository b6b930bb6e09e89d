"""What can be seen of guests from outside.

A module imports only what is listed before it:

address: their addresses
control: whether they can be given commands
dirtyrate: how fast they write to memory
eventwords, events: events
statgroups, stats: statistics
"""
