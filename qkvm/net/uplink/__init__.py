"""Bridges over NICs of the host, and the host's own links as libvirt shows them.

A module imports only what is listed before it:

holding, handover: a link's addresses and routes, and how another link gets them
fitness: which NICs can become a bridge's port
uplink: make a bridge over a NIC, and undo it
interface: the host's own links
"""
