#!/bin/sh
# Ends the demo in this folder: every node, every simulated BMC, and the folder itself.
set -u
demo=$(cd "$(dirname "$0")" && pwd)
# The BMCs first: they could switch a node on again.
for file in "$demo"/nodes/*/bmc.pid; do
    [ -s "$file" ] || continue
    process=$(cat "$file")
    [ "$(cat "/proc/$process/comm" 2>/dev/null)" = ipmi_sim ] && kill "$process"
done
for node in "$demo"/nodes/*/; do "$node/power" off; done
rm -rf "$demo"
