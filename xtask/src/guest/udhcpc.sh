#!/bin/sh
# What udhcpc calls with its lease.
case $1 in
bound | renew)
    ip address add "$ip/${mask:-24}" dev "$interface"
    [ -n "$router" ] && ip route add default via "${router%% *}" dev "$interface"
    ;;
esac
