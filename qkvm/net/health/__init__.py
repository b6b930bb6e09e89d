"""What is wrong with a network that runs, or should, and its repair.

A module imports only what is listed before it:

finding: one thing that is wrong
plugged: the taps that belong on a bridge
rules: what is wrong with a network's rules
check: what is wrong with a network
repair: what is missing put back
"""
