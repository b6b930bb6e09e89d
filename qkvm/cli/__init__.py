"""The command line: the tables of verbs, shared code, and the implementation of each verb.

A module imports only what is listed before it:

verbs: the tables of verbs: names, options and help texts
parse, words: parse a verb's words, and a line of several commands
context: what a verb gets besides its arguments
terminal: its width and colours
output, log, journald: print results, and write to the log file and the journal
globals, readonly: options before the verb
common, editor: options of many verbs; the user's editor
domain: verbs on domains
net: verbs on networks and interfaces
storage: verbs on pools and volumes
host: verbs on this host
install: the verb install, which takes virt-install's options
inside: verbs that lead into a guest: exec, ssh, cp, run
shell: the shell, its verbs, completion and help
main: the entry point
"""
