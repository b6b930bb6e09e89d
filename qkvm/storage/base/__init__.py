"""Base images by name: kept read-only, each with its checksum and where it came from.

A module imports only what is listed before it:

fetch: a file from the web, taken up again where it stopped
checksum: checksums, lists of them and their signatures
look: which format an image has, and whether it is one
store: the images of a tree
"""
