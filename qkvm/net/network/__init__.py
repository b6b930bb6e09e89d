"""Networks and their verbs.

A module imports only what is listed before it:

auto, text: definitions as text, and what they leave to qkvm
handle: a network as it is
change: change its definition and its run together
life: make and remove what runs of it
forward: ports of the host that lead to its guests
network: a network with all its verbs
granted: a network for other users: grant, revoke, list
events: events of networks as they happen
preview: what a start would ask of the packet filter
"""
