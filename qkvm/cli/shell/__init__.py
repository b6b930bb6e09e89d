"""The shell and its verbs, completion, and help.

A module imports only what is listed before it:

guide: the topics of the guide
usage: help on verbs, groups and options
candidates: possible next words of a command
completion: bash and zsh
shell: reads commands from a terminal or a script
itself: the shell's own verbs
parity: which of virsh's verbs qkvm has
roff, manual: manual pages
help: the verb help
"""
