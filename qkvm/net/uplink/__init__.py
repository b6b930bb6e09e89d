"""Bridges made over NICs of the host, and the host's own links as libvirt shows them.

A module imports only what is listed before it:

holding, handover: what a link has of the network layer, and how another one gets it
fitness: which NICs can become a bridge's port
uplink: a bridge made over a NIC, and the way back
interface: the host's own links
"""
