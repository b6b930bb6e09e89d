"""Verbs on storage pools, volumes and base images, and on clones.

A module imports only what is listed before it:

pools: pools
volumes: volumes
images: base images
clones: clones of domains, and templates
"""
