"""Shared folders: served to the guest, plugged and unplugged."""
