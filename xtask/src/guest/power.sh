#!/bin/sh
# What acpid runs for the power button.
echo "guest: the power button was pressed, powering off" > /dev/console
poweroff -f
