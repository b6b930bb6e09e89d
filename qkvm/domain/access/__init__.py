"""Ways into a guest.

A module imports only what is listed before it:

keys: qkvm's own key pair for guests, and the host keys of guests
ssh: ssh into a guest, over the network or vsock
byagent: a command that the agent runs
roads: a command by the first road that there is
copy: files and folders into a guest and out of it
"""
