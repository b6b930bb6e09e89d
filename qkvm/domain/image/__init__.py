"""Files of a domain that are not plugged: firmware, and who needs which image.

A module imports only what is listed before it:

firmware: which build a domain gets, and its store of UEFI variables
needs: who needs which image
nvram: what becomes of the variables when the domain goes
"""
