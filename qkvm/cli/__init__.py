"""The command line: verbs, tables, exit codes."""
