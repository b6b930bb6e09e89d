"""Bridges, taps, packet filters, DHCP."""
