"""What is wrong with a network that runs, or should, and its repair.

A module imports only what is listed before it:

plugged: the taps that belong on a bridge
check: what is wrong with a network
repair: what is missing put back
"""
