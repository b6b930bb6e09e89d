"""The monitor, and the guest agent, which speaks the same protocol.

A module imports only what is listed before it:

session: one session with a monitor
agent: one session with a guest agent
survey: many monitors asked at once
oneshot: a QEMU that is started for questions alone
"""
