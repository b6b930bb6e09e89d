"""What the QEMU programs of this host can do: asked once, kept, and told in virsh's words."""
