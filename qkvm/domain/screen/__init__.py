"""How a person or a program gets at the guest: console, screen, keys, monitor."""
