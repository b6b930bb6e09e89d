"""Ways into a guest.

A module imports only what is listed before it:

keys: qkvm's own key pair for guests, and the host keys of guests
"""
