#!/bin/sh
# The power switch of one node of the demo: power on | off | status. The node's files lie beside this script.
#
# A node is a PID namespace whose first process starts the daemon again whenever it ends, as systemd would. Killing
# that first process makes the kernel kill everything else in it, the database included: that is the power cut.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
demo=$(cd "$here/../.." && pwd)
node=$(basename "$here")

# A cgroup of its own, so that what the daemon makes for its database lies in one place; empty where none can be made.
cgroup_root=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
cgroup=${cgroup_root:+$cgroup_root/$(basename "$demo")-$node}

# The first process of the namespace, seen from outside: the only child of the `unshare` that was recorded.
first() {
    [ -s "$here/machine.pid" ] || return 0
    outer=$(cat "$here/machine.pid")
    [ "$(cat "/proc/$outer/comm" 2>/dev/null)" = unshare ] || return 0
    cat "/proc/$outer/task/$outer/children" 2>/dev/null || true
}

power_on() {
    [ -z "$(first)" ] || return 0
    # A boot: a new boot id, and an empty run directory.
    rm -rf "$here/run"
    mkdir "$here/run"
    cat /proc/sys/kernel/random/uuid >"$here/boot_id"
    if [ -n "$cgroup" ] && ! mkdir -p "$cgroup" 2>/dev/null; then cgroup=; fi
    CGROUP=$cgroup setsid sh -c '
        [ -z "$CGROUP" ] || echo 0 >"$CGROUP/cgroup.procs" || true
        echo $$ >"$1/machine.pid"
        exec unshare --pid --mount-proc --fork --kill-child sh -c '\''
            while :; do "$1/../../regent" run --config "$1/regent.toml"; sleep 0.2; done
        '\'' machine "$1"
    ' machine "$here" </dev/null >>"$here/log" 2>&1 &
    until [ -n "$(first)" ]; do sleep 0.01; done
}

power_off() {
    process=$(first | tr -d ' ')
    [ -n "$process" ] || return 0
    kill -KILL "$process" 2>/dev/null || true
    # Gone when its parent has reaped it; by then the kernel has ended every process of the namespace.
    while [ -n "$(first)" ]; do sleep 0.01; done
    [ -z "$cgroup" ] || find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || true
}

case "${1:-}" in
on) power_on ;;
off) power_off ;;
status) if [ -n "$(first)" ]; then echo on; else echo off; fi ;;
*) echo "usage: $0 on | off | status" >&2; exit 2 ;;
esac
