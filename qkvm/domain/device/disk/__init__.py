"""Disks: plugged, their media changed, their I/O limited."""
