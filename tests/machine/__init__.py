"""Tests in a whole host with KVM: that of scripts/make-host, in an emulator."""
