"""What the user wants: frozen, pure, without I/O."""
