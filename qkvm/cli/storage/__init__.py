"""Verbs on storage pools, volumes and base images.

A module imports only what is listed before it:

pools: pools
volumes: volumes
images: base images
"""
