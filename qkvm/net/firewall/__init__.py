"""The packet filter of networks: one plan, two full backends, and the filters of single NICs.

A module imports only what is listed before it:

plan: what a network asks of the packet filter
entries: entries of the legacy tables, as they are
save: a plan in the words of iptables-save
xtables: the legacy tables
obstacle: what of others stands in a network's way
legacy, iptables: rulesets of others in the legacy tables, and the backend of that kind
nft: the program nft
nfttext: a plan in the words of nft
nftables: the backend of that kind
simulate: what a ruleset does with a packet
foreign: rulesets of others, opened for a network
guard: what a guest may send
choice: which backend a network gets
"""
