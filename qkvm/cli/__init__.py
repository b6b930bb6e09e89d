"""The command line: tables of verbs, what they share, and what each of them does.

A module imports only what is listed before it:

verbs: the tables: what verbs are called, take and say of themselves
parse, words: a verb's words, and a line of several commands
context: what a verb gets beside its arguments
output, log, journald: what verbs print, and where else it is told
globals, readonly: options in front of the verb
common, editor: what many verbs take, and a text in the user's own editor
domain: verbs on domains
net: verbs on networks and interfaces
storage: verbs on pools and volumes
host: verbs on this host
install: the verb install, which takes virt-install's options
shell: the shell, its verbs, completion and help
main: the way in
"""
