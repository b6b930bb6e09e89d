"""Verbs on storage pools and volumes.

A module imports only what is listed before it:

pools: pools
volumes: volumes
"""
