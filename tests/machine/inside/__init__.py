"""Tests that pytest runs in the host of tests.machine.machine itself, where there is a KVM: scripts/test --kvm."""
