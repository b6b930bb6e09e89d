"""The shell and its verbs, completion, and help.

A module imports only what is listed before it:

guide: the guide's topics
usage: help on verbs, groups and options
candidates: what could come next in a command
completion: bash and zsh
shell: commands from a terminal or a script
itself: verbs of the shell itself
parity: how qkvm stands to virsh
roff, manual: manual pages
help: the verb help
"""
