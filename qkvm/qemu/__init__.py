"""From the definition to the command line; pure."""
