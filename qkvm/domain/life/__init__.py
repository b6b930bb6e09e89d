"""From start to shutdown.

A module imports only what is listed before it:

actions: what a power-off, reboot or crash leads to
job: the job under way: seen, aborted, mended
restore, start, transient: three ways to begin
stop: shutdown, reboot, reset, destroy, suspend, resume
autostart, userboot: the host's boot and halt, for root and for users
"""
