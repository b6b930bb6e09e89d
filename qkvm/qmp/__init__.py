"""The monitor, and the guest agent, which speaks the same protocol.

A module imports only what is listed before it:

transcript: what was said to a domain
session: one session with a monitor, whatever its transport
commands: commands with typed answers, for several callers
plain, library: its transports: a plain socket, and qemu.qmp
agent: one session with a guest agent
survey: many monitors asked at once
oneshot: a QEMU that is started for questions alone
"""
