#!/bin/sh
# The whole user space of Longshore's test guest: it says what it sees of its disks and its cloud-init data, in lines
# that tests look for, and powers off. `#longshore: stay` in the user data, or longshore.stay on the kernel's command
# line, makes it stay with a shell on the serial port and obey the power button instead.

/bin/busybox mkdir -p /proc /sys /dev /root /mnt/root /mnt/cidata
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
exec < /dev/console > /dev/console 2>&1

# Numbered by xtask in the order of their dependencies.
for module in /lib/modules/*.ko; do
    insmod "$module" || echo "guest: cannot load $module"
done

say() { echo "guest: $*"; }

# by_label TENTHS LABEL...: the partition with one of these labels, after a wait of at most that many tenths of a second.
by_label() {
    tries=$1
    shift
    while [ "$tries" -gt 0 ]; do
        for label in "$@"; do
            findfs "LABEL=$label" 2> /dev/null && return 0
        done
        tries=$((tries - 1))
        usleep 100000
    done
    return 1
}

echo
echo "Longshore guest is up: kernel $(uname -r)"
say "memory $(awk '/^MemTotal/ { print $2 }' /proc/meminfo) KiB, $(nproc) CPU"

if root=$(by_label 50 longshore-root); then
    partition=${root#/dev/}
    disk=${partition%[0-9]}
    say "root disk /dev/$disk has $(($(cat "/sys/class/block/$disk/size") * 512)) bytes"
    if mount -t ext4 -o ro "$root" /mnt/root; then
        cat /mnt/root/etc/longshore-release
        if (cd /mnt/root && sha256sum -c /etc/longshore.sha256); then
            say "root disk verified"
        else
            say "root disk is NOT what was built"
        fi
    else
        say "cannot mount $root"
    fi
else
    say "no root disk found"
fi

if [ -e /sys/class/net/eth0 ]; then
    ip link set eth0 up
    udhcpc -i eth0 -n -q -t 5 -T 1 -s /etc/udhcpc.sh > /dev/null 2>&1
    say "network eth0 $(ip -4 -o address show dev eth0 | awk '{ print $4 }')"
fi

stay=
grep -q longshore.stay /proc/cmdline && stay=yes
# Disks appear a moment after their driver; by now all have, and having no such disk is no fault.
if cidata=$(by_label 1 cidata CIDATA); then
    if mount -t iso9660 -o ro "$cidata" /mnt/cidata 2> /dev/null || mount -t vfat -o ro "$cidata" /mnt/cidata; then
        # YAML, of which JSON is a part.
        hostname=$(sed -n 's/.*local-hostname"\{0,1\}: *"\{0,1\}\([^",}]*\).*/\1/p' /mnt/cidata/meta-data)
        say "cloud-init disk $cidata"
        say "hostname ${hostname:-(none)}"
        [ -n "$hostname" ] && hostname "$hostname"
        echo "----- user-data"
        cat /mnt/cidata/user-data
        echo
        echo "----- end of user-data"
        grep -q '^#longshore: stay' /mnt/cidata/user-data && stay=yes
    else
        say "cannot mount $cidata"
    fi
else
    say "no cloud-init disk found"
fi

if [ -z "$stay" ]; then
    say "powering off"
    poweroff -f
fi

acpid -c /etc/acpi -l /dev/null
say "staying: a shell is on this console; the power button ends it"
while true; do
    setsid cttyhack sh
done
