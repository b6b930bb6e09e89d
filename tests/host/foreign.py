"""Rules that Docker and firewalld make, and the network that the tests start beside them."""

from __future__ import annotations

NAT = """name = "lan"
bridge = "virbr7"
address = "192.168.77.1/24"

[dhcp]
start = "192.168.77.100"
end = "192.168.77.200"

[ipv6]
address = "fd77::1/64"

[[forwards]]
ports = "8022"
guest = "192.168.77.50"
to = 22

[[dns.hosts]]
ip = "192.168.77.9"
names = ["printer.example"]
"""


DOCKER = """*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -s 192.168.77.66/32 -j DROP
-A DOCKER-USER -j RETURN
COMMIT
"""
"""What Docker 24 leaves in the filter table, and one rule of its user's."""


FIREWALLD = """table inet firewalld {
  chain filter_INPUT {
    type filter hook input priority filter + 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
    jump filter_INPUT_ZONES
    reject with icmpx admin-prohibited
  }
  chain filter_FORWARD {
    type filter hook forward priority filter + 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
    ip6 daddr { ::/96, ::ffff:0.0.0.0/96, 2002:c0a8::/32 } reject with icmpv6 addr-unreachable
    jump filter_FORWARD_ZONES
    reject with icmpx admin-prohibited
  }
  chain filter_OUTPUT {
    type filter hook output priority filter + 10; policy accept;
    ct state { established, related } accept
    oifname "lo" accept
    ip6 daddr { ::/96, ::ffff:0.0.0.0/96, 2002:c0a8::/32 } reject with icmpv6 addr-unreachable
    jump filter_OUTPUT_POLICIES_pre
    jump filter_OUTPUT_POLICIES_post
  }
  chain filter_INPUT_POLICIES_pre {
    jump filter_IN_policy_allow-host-ipv6
  }
  chain filter_INPUT_ZONES {
    goto filter_IN_public
  }
  chain filter_INPUT_POLICIES_post { }
  chain filter_FORWARD_POLICIES_pre { }
  chain filter_FORWARD_ZONES {
    goto filter_FWD_public
  }
  chain filter_FORWARD_POLICIES_post { }
  chain filter_OUTPUT_POLICIES_pre { }
  chain filter_OUTPUT_POLICIES_post { }
  chain filter_IN_public {
    jump filter_INPUT_POLICIES_pre
    jump filter_IN_public_pre
    jump filter_IN_public_log
    jump filter_IN_public_deny
    jump filter_IN_public_allow
    jump filter_IN_public_post
    jump filter_INPUT_POLICIES_post
    meta l4proto { icmp, ipv6-icmp } accept
    reject with icmpx admin-prohibited
  }
  chain filter_IN_public_pre { }
  chain filter_IN_public_log { }
  chain filter_IN_public_deny { }
  chain filter_IN_public_allow {
    tcp dport 22 accept
    ip6 daddr fe80::/64 udp dport 546 accept
  }
  chain filter_IN_public_post { }
  chain filter_FWD_public {
    jump filter_FORWARD_POLICIES_pre
    jump filter_FWD_public_pre
    jump filter_FWD_public_log
    jump filter_FWD_public_deny
    jump filter_FWD_public_allow
    jump filter_FWD_public_post
    jump filter_FORWARD_POLICIES_post
    reject with icmpx admin-prohibited
  }
  chain filter_FWD_public_pre { }
  chain filter_FWD_public_log { }
  chain filter_FWD_public_deny { }
  chain filter_FWD_public_allow { }
  chain filter_FWD_public_post { }
  chain filter_IN_policy_allow-host-ipv6 {
    jump filter_IN_policy_allow-host-ipv6_pre
    jump filter_IN_policy_allow-host-ipv6_log
    jump filter_IN_policy_allow-host-ipv6_deny
    jump filter_IN_policy_allow-host-ipv6_allow
    jump filter_IN_policy_allow-host-ipv6_post
  }
  chain filter_IN_policy_allow-host-ipv6_pre { }
  chain filter_IN_policy_allow-host-ipv6_log { }
  chain filter_IN_policy_allow-host-ipv6_deny { }
  chain filter_IN_policy_allow-host-ipv6_allow {
    icmpv6 type nd-neighbor-advert accept
    icmpv6 type nd-neighbor-solicit accept
    icmpv6 type nd-router-advert accept
    icmpv6 type nd-redirect accept
  }
  chain filter_IN_policy_allow-host-ipv6_post { }
}
"""
"""The filter chains of firewalld 1.3.3 with its default zone, public, as nft lists them; two sets shortened."""
