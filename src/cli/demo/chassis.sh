#!/bin/sh
# What the simulated BMC of a node of the demo runs when it is asked about, or told to switch, the power.
set -eu
power=$(dirname "$0")/power
case "$*" in
"get power") if [ "$("$power" status)" = on ]; then echo power:1; else echo power:0; fi ;;
"set power 1") "$power" on ;;
"set power 0") "$power" off ;;
"set reset 1") "$power" off; "$power" on ;;
esac
