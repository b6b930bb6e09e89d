"""The packet filter of networks: one plan, two full backends, and the filters of single NICs.

A module imports only what is listed before it:

plan: what a network asks of the packet filter, and what stands in its way
save: a plan as iptables-save prints it
xtables: the legacy tables, opened, locked and read
legacy, iptables: others' rulesets in the legacy tables, and the backend that writes there
nft: the program nft
nfttext: a plan as nft prints it
nftables: the backend that uses nft
simulate: what a ruleset does with a packet
foreign: open others' rulesets for a network
guard: what a guest may send
choice: which backend a network gets
"""
