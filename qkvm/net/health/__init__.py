"""Find and repair what is wrong with a network that runs, or should.

A module imports only what is listed before it:

plugged: the taps that belong on a bridge
check: find what is wrong
repair: put back what is missing
"""
