"""Talk to QEMU's monitor, and to the guest agent, which speaks a similar protocol.

A module imports only what is listed before it:

transcript: a log of what was said to a domain
session: one session with a monitor, over any transport
commands: common questions, with typed answers
plain, library: the transports: a plain socket, and qemu.qmp
agent: one session with a guest agent
survey: many monitors asked at the same time
oneshot: a QEMU that is started only to answer questions
"""
