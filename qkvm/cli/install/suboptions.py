"""The suboptions of virt-install's options. Constants only.

Other names of a suboption follow after bars; a name after a tilde is accepted and not listed. A dot in a name may
be typed as an underscore, as in older versions of virt-install. [0-9]* stands for a number.
"""

from __future__ import annotations

PCI = "address.type address.domain address.bus address.slot address.function"
PLACE = f"{PCI} address.controller address.target address.unit address.port alias.name"
"""The address of a device, and its id."""

_CHARDEV = (
    "type source.path|path source.mode|mode source.host|host source.service protocol.type target.type "
    "target.name|name target.model.name"
)

SUBOPTIONS: dict[str, str] = {
    "metadata": "name uuid title description os_name os_full_id genid genid_enable",
    "memory": "memory maxmemory currentMemory hugepages",
    "memorybacking": (
        "hugepages hugepages.page[0-9]*.size hugepages.page[0-9]*.unit nosharepages locked "
        "access.mode|~access_mode source.type allocation.mode"
    ),
    "vcpus": "vcpus|vcpu maxvcpus vcpu.current cpuset|vcpu.cpuset sockets dies cores threads",
    "cpu": (
        "model mode force require optional disable forbid match migratable model.vendor_id cache.mode "
        "topology.sockets topology.dies topology.cores topology.threads"
    ),
    "cputune": (
        "shares period quota global_period global_quota emulator_period emulator_quota iothread_period "
        "iothread_quota vcpupin[0-9]*.vcpu vcpupin[0-9]*.cpuset emulatorpin.cpuset "
        "iothreadpin[0-9]*.iothread iothreadpin[0-9]*.cpuset"
    ),
    "numatune": "memory.nodeset|nodeset memory.mode|mode",
    "memtune": "soft_limit hard_limit swap_hard_limit",
    "blkiotune": (
        "weight device[0-9]*.path device[0-9]*.weight device[0-9]*.read_bytes_sec "
        "device[0-9]*.write_bytes_sec device[0-9]*.read_iops_sec device[0-9]*.write_iops_sec"
    ),
    "iothreads": (
        "iothreads iothreadids.iothread[0-9]*.id iothreadids.iothread[0-9]*.thread_pool_min "
        "iothreadids.iothread[0-9]*.thread_pool_max"
    ),
    "os-variant": "name|short-id id detect require",
    "location": "location kernel initrd",
    "image": "name size full format path",
    "install": "os kernel initrd kernel_args kernel_args_overwrite bootdev no_install",
    "boot": (
        "hd cdrom network fd uefi boot[0-9]*.dev bootmenu.enable|~menu bootmenu.timeout firmware "
        "firmware.feature[0-9]*.name firmware.feature[0-9]*.enabled loader loader.readonly|~loader_ro "
        "loader.type loader.secure nvram nvram.template kernel initrd cmdline|~kernel_args|~extra_args "
        "machine emulator arch smbios.mode"
    ),
    "cloud-init": (
        "root-password-generate root-password-file disable root-ssh-key clouduser-ssh-key|~ssh-key "
        "user-data meta-data network-config"
    ),
    "disk": (
        "path|source.file|source.dev size pool|source.pool vol source.volume format|driver.type "
        "bus|target.bus device readonly shareable "
        "sparse driver.cache|cache driver.io|~io driver.discard|~discard "
        "driver.detect_zeroes|~detect_zeroes driver.iothread driver.name serial wwn boot.order "
        "target.dev|~target backing_store backing_format iotune.total_bytes_sec iotune.read_bytes_sec "
        "iotune.write_bytes_sec iotune.total_iops_sec iotune.read_iops_sec iotune.write_iops_sec " + PLACE
    ),
    "network": (
        "type network bridge source source.mode|~source_mode model.type|model mac.address|mac "
        "target.dev|~target link.state boot.order mtu.size|~mtu filterref.filter|~filterref port.isolated "
        "driver.name|~driver_name driver.queues|~driver_queues backend.type portForward[0-9]* "
        "portForward[0-9]*.address portForward[0-9]*.proto portForward[0-9]*.range[0-9]*.start "
        "portForward[0-9]*.range[0-9]*.end portForward[0-9]*.range[0-9]*.to " + PLACE
    ),
    "graphics": "type listen port websocket keymap password",
    "video": ("model.type|~model|~type model.vgamem|~vgamem model.heads|~heads " + PCI),
    "controller": (
        "type model index driver.queues driver.iothread target.chassis target.port ports "
        "num_pcie_root_ports " + PLACE
    ),
    "input": ("type bus " + PLACE),
    "serial": (f"{_CHARDEV} " + PLACE),
    "console": (_CHARDEV),
    "channel": (f"{_CHARDEV} alias.name"),
    "parallel": "type",
    "rng": ("backend.model|type backend|device|~path rate.bytes rate.period " + PCI),
    "watchdog": ("model action " + PCI),
    "memballoon": ("model autodeflate freePageReporting stats.period " + PCI),
    "sound": "model",
    "audio": "type",
    "vsock": ("model cid.auto|~auto_cid cid.address|~cid " + PCI),
    "tpm": "backend.type|~type model backend.version|~version backend.device.path|~path",
    "filesystem": (
        "source|source.dir target|target.dir accessmode|~mode fmode dmode readonly driver.type type " + PLACE
    ),
    "panic": "model",
    "hostdev": "name",
    "smartcard": "mode",
    "redirdev": "bus",
    "security": "type",
    "features": (
        "acpi apic pae smm.state|~smm vmport.state|~vmport pmu.state|~pmu kvm.hidden.state|~kvm_hidden "
        "hyperv.relaxed.state|~hyperv_relaxed hyperv.vapic.state|~hyperv_vapic "
        "hyperv.spinlocks.state|~hyperv_spinlocks hyperv.spinlocks.retries "
        "hyperv.synic.state|~hyperv_synic hyperv.reset.state|~hyperv_reset"
    ),
    "clock": (
        "offset rtc_tickpolicy pit_tickpolicy hpet_present kvmclock_present hypervclock_present "
        "timer[0-9]*.name timer[0-9]*.present timer[0-9]*.tickpolicy"
    ),
    "pm": "suspend_to_mem.enabled|~suspend_to_mem suspend_to_disk.enabled|~suspend_to_disk",
    "events": "on_poweroff on_reboot on_crash",
    "sysinfo": (
        "type system.manufacturer system.product system.version system.serial system.sku system.family "
        "system.uuid oemStrings.entry[0-9]*"
    ),
    "check": "path_in_use mac_in_use disk_size path_exists all",
}
"""Option -> its suboptions; a first word without a name is a value of the first, unless BARE says otherwise."""

POSITIONS: dict[str, tuple[str, ...]] = {
    "filesystem": ("source", "target"),
    "boot": (),
    "network": ("type",),
    "features": (),
    "clock": ("offset",),
    "pm": (),
    "events": (),
    "check": (),
    "metadata": (),
    "cloud-init": (),
    "cputune": (),
    "vsock": ("model",),
}
"""The meaning of first words without names, if it is not the first suboption alone."""

BARE: dict[str, tuple[str, ...]] = {
    "boot": ("hd", "cdrom", "network", "fd", "uefi"),
    "disk": ("readonly", "shareable"),
}
"""Suboptions that may be given as a word alone, at any place; it means yes."""

REPEATED: dict[str, tuple[str, ...]] = {
    "cpu": ("force", "require", "optional", "disable", "forbid"),
    "cloud-init": ("root-ssh-key", "clouduser-ssh-key"),
}
"""Suboptions that may be given several times; newlines separate the values."""

CPU_LISTS: dict[str, tuple[str, ...]] = {
    "vcpus": ("cpuset",),
    "numatune": ("memory.nodeset",),
    "cputune": ("cpuset",),
}
"""Suboptions whose value may contain commas: a part that looks like a CPU list continues the one before it."""

_XML = "there is no XML inside qkvm to edit"
_VIRTIO = "virtio's ats, iommu, packed and page_per_vq stay as QEMU has them"
_REMOTE = "disks on the network are not there yet"
_GEOMETRY = "the geometry is the firmware's business"
_NUMA = "NUMA nodes of the guest are not there yet"

_CHARS = "a serial port is a server here, without TLS or telnet; its log is var/log/qkvm/NAME.serial.log"

REFUSED: dict[str, dict[str, str]] = {
    "": {
        "clearxml": _XML,
        "xpath*": _XML,
        "driver.ats": _VIRTIO,
        "driver.iommu": _VIRTIO,
        "driver.packed": _VIRTIO,
        "driver.page_per_vq": _VIRTIO,
        "address.*": (
            "of an address type, domain, bus, slot, function (pci), controller, bus, target, unit "
            "(drive) and bus, port (usb) are known"
        ),
    },
    "memory": {
        "maxMemory*": "memory modules are not there yet: --memory 512,maxmemory=1024 with the balloon",
    },
    "memorybacking": {
        "allocation.threads": "QEMU chooses",
        "discard": "memory files are QEMU's own and vanish with it",
        "hugepages.*": "huge pages of one size are for all of the memory",
    },
    "vcpus": {
        "vcpus.*": "vCPUs are plugged in their order",
        "vcpu.placement": "pins are yours: cpuset=",
    },
    "cpu": {
        "numa.*": _NUMA,
        "cache.level": "the level goes with cache.mode",
        "secure": "add what you need with require=",
        "vendor": "QEMU does not compare vendors",
        "check": "QEMU does not compare CPUs",
        "model.fallback": "QEMU takes the very model",
    },
    "cputune": {
        "cachetune*": "resctrl is not there yet",
        "memorytune*": "resctrl is not there yet",
        "*sched*": "real-time schedulers are not there yet",
    },
    "numatune": {
        "memnode*": _NUMA,
        "memory.placement": "nodes are yours: memory.nodeset=",
    },
    "memtune": {
        "min_guarantee": "it is Xen's",
    },
    "iothreads": {
        "defaultiothread*": "QEMU's main thread has no pool of its own to size in 7.2",
    },
    "boot": {
        "init*": "it is for containers",
        "dtb": "x86 has no device trees",
        "acpi.table*": "it is not there yet",
        "bios.*": "SeaBIOS speaks on the screen alone here",
        "useserial": "SeaBIOS speaks on the screen alone here",
        "bootloader*": "it is Xen's",
        "os_type": "hvm, the one that there is",
        "domain_type": "--virt-type says it",
        "refresh-machine-type": "a machine without a version is always the newest",
    },
    "disk": {
        "source.host*": _REMOTE,
        "source.protocol": _REMOTE,
        "source.name": _REMOTE,
        "source.dir": "folders are no disks: --filesystem",
        "source.address*": "NVMe pass-through is not there yet",
        "source.namespace": "NVMe pass-through is not there yet",
        "source.*": "it is not there yet",
        "geometry.*": _GEOMETRY,
        "blockio.*": "QEMU's block sizes stay",
        "rawio": "SCSI pass-through is not there",
        "sgio": "SCSI pass-through is not there",
        "driver.copy_on_read": "it is not there yet",
        "driver.error_policy": (
            "a failed write stops the guest if the disk is full, and is reported to it otherwise"
        ),
        "error_policy": ("a failed write stops the guest if the disk is full, and is reported to it otherwise"),
        "driver.queues": "QEMU has a queue for each vCPU",
        "boot.loadparm": "it is for s390 machines",
        "snapshot": "every disk can be snapshotted",
        "target.removable": "it is not there yet",
        "removable": "it is not there yet",
        "target.rotation_rate": "it is not there yet",
        "transient*": "it is not there yet",
        "type": "a path tells files from devices",
    },
    "network": {
        "filterref*": "DHCP tells the filter the guest's address; ip = […] in the definition adds others",
        "virtualport*": "Open vSwitch and 802.1Qbg are not there yet",
        "source.path": "vhost-user is not there yet",
        "source.type": "vhost-user is not there yet",
        "source.portgroup": "networks have no port groups yet",
        "portgroup": "networks have no port groups yet",
        "rom.*": "QEMU brings the boot ROMs",
        "driver.*": "name and queues are what can be said",
        "boot.loadparm": "it is for s390 machines",
        "trustGuestRxFilters": "it is macvtap's",
    },
    "graphics": {
        "tlsPort": "it is SPICE's",
        "passwordValidTo": "passwords do not expire",
        "connected": "it is not there yet",
        "listens*": "there is one address: listen=",
        "defaultMode": "it is SPICE's",
        "gl.*": "it is SPICE's",
        "address.*": "a screen has no place; --video has one",
        "*.*": "it is SPICE's",
    },
    "video": {
        "model.acceleration*": "3D acceleration needs a display of QEMU's own",
        "model.*": "vgamem is what can be said",
        "ram": "vgamem is what can be said",
        "vram": "vgamem is what can be said",
    },
    "controller": {
        "vectors": "QEMU chooses",
        "master.startport": "the companions of an EHCI controller are known",
        "maxGrantFrames": "it is Xen's",
        "target.*": "chassis and port are what can be said",
        "address": "address.type, address.slot … say it",
    },
    "input": {
        "source.*": "the host's own input devices are not handed out",
        "model": "it is virtio's passthrough",
    },
    **dict.fromkeys(
        ("serial", "console", "channel", "parallel"),
        {
            "log.*": _CHARS,
            "bind_host": _CHARS,
            "source.*": _CHARS,
            "target.address": "QEMU's own network has no forwards to channels",
            "target.port": "ports are numbered in their order",
            "protocol": _CHARS,
        },
    ),
    "rng": {
        "backend.*": "the host's /dev/urandom, /dev/random and /dev/hwrng are what there is",
        "driver.*": _VIRTIO,
    },
    "tpm": {
        "backend.*": "what swtpm keeps is qkvm's business",
        "active_pcr_banks*": "it is not there yet",
    },
    "filesystem": {
        "multidevs": "remap is what is done in any case",
        "binary.*": "virtiofsd runs as qkvm starts it",
        "driver.*": "driver.type says virtiofs or 9p",
        "space_*": "it is for containers",
        "source.*": "a folder is what can be shared",
        "model": "QEMU's virtio is the one that there is",
    },
    "features": {
        "gic*": "it is Arm's",
        "hap": "it is Xen's",
        "viridian": "it is Xen's",
        "privnet": "it is for containers",
        "ioapic.driver": "QEMU chooses",
        "apic.eoi": "KVM chooses",
        "eoi": "KVM chooses",
        "pvspinlock*": "KVM chooses",
        "vmcoreinfo*": "it is not there yet",
        "kvm.*": "KVM chooses",
    },
    "clock": {
        "timer*": "rtc, pit, hpet, kvmclock and hypervclock are known, with present and tickpolicy",
        "*_present": "hpet, kvmclock and hypervclock are known",
        "*_tickpolicy": "rtc and pit are known",
    },
    "events": {
        "on_lockfailure": "qkvm has no lock manager",
    },
    "sysinfo": {
        "bios*": "the SMBIOS system information (system.*) is what can be set",
        "baseBoard*": "the SMBIOS system information (system.*) is what can be set",
        "chassis*": "the SMBIOS system information (system.*) is what can be set",
        "oemStrings*": "oemStrings.entry0=io.systemd.credential:NAME=VALUE is what can be set",
        "entry*": "the SMBIOS system information (system.*) is what can be set",
    },
    "sound": {
        "*": "qkvm has no sound devices",
    },
    "hostdev": {
        "*": "devices of the host are not handed out yet",
    },
    "redirdev": {
        "*": "USB redirection is SPICE's",
    },
    "smartcard": {
        "*": "qkvm has no smartcards",
    },
    "security": {
        "*": "each QEMU has a uid of its own instead of a label",
    },
}
"""Suboptions of virt-install, as patterns -> why they are refused; '' applies to all options."""
