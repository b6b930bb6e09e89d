"""The usual meaning and values of an option, if the verb's table does not give them. For help and completion."""

from __future__ import annotations

_USUAL = """
bypass-cache           avoid file system cache when saving
cmd                    command
config                 affect next boot
console                attach to console after creation
current                affect current domain
device:disk
domain:domain          domain name, id or uuid
emulator:file
event                  which event type to wait for
file:file              file containing a domain description, TOML or libvirt's XML
ignore-unsupported     leave out what qkvm can't do, and list it
image:image            name of a base image
inactive               get inactive rather than running configuration
interface:interface    interface device (MAC Address)
json                   print JSON, for programs
list                   list valid event types
live                   affect running domain
loop                   loop until timeout or interrupt, rather than one-shot
mac                    MAC address
network:network        network name or uuid
no-wait                return as soon as QEMU has accepted it, without watching the outcome
pass-fds               pass file descriptors to the guest (not supported)
path:disk
persistent             make live change persistent
pool:pool              pool name or uuid
reset-nvram            re-initialize NVRAM from its pristine template
security-info          include security sensitive information in XML dump
snapshotname:snapshot
table                  list table (default)
timeout                seconds to wait for the outcome
timestamp              show timestamp for each printed event
type                   network interface type
uuid                   list uuid's only
validate               validate the definition (which is always done)
verbose                display the progress of save
virttype:kvm|qemu
vol:volume             vol name, key or path
wrap                   wrap xpath results in an common root element
xml:file               filename containing an updated domain description for the target
xpath                  xpath expression to filter the XML document
"""


def usual(option: str) -> tuple[str, str]:
    """Return the possible values of an option and its meaning; '' if they depend on the verb."""
    for line in _USUAL.splitlines():
        key, _, meaning = line.partition("  ")
        name, _, values = key.partition(":")
        if name == option:
            return values, meaning.strip()
    return "", ""
