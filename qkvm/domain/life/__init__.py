"""The verbs that start and stop a domain.

A module imports only what is listed before it:

actions: what a guest's power-off, reboot or crash leads to
job: show, abort or mend the job that is under way
start: start, create, restore
stop: shutdown, reboot, reset, destroy, suspend, resume
autostart: start domains when the machine boots, shut them down when it halts
service: the init's or user's service that calls autostart
"""
