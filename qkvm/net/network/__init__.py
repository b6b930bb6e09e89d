"""Networks and their verbs.

A module imports only what is listed before it:

auto, text: definitions as text, and what they leave to qkvm
handle: a network as it is
change: its definition and what runs of it, changed together
life: what runs of it, brought up and taken down
forward: ports of the host that lead to its guests
network: a network with all its verbs
events: what happens to networks, as it comes
preview: what a start would ask of the packet filter
"""
