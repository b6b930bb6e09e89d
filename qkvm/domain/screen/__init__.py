"""A user's access to a guest: console, screen, keyboard, QEMU's monitor.

A module imports only what is listed before it:

console: attach a terminal to a serial port
display: VNC display, screenshot, send-key, inject-nmi
keys: names and codes of keys
monitor: qemu-monitor-command
"""
