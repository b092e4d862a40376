# Removes a farm of engines, whatever state it is in: `sh -c SCRIPT teardown DIRECTORY PREFIX NETWORK`.
#
# It first reads its stdin to the end. The farm holds the other end of that pipe, so that this runs when the farm is
# dropped, and also when its process is interrupted or killed.
directory=$1 prefix=$2 network=$3
cat >/dev/null

# Services that were told to keep their files here.
for process in /proc/[0-9]*; do
  if tr '\0' ' ' <"$process/cmdline" | grep -qF " $directory/services/"; then
    kill -KILL "${process#/proc/}"
  fi
done 2>/dev/null
for namespace in $(ip netns list | awk -v prefix="$prefix-" 'index($1, prefix) == 1 { print $1 }'); do
  # Engines, their helpers and their containers, which all live in it. One may start another before it dies.
  round=0
  while [ "$round" -lt 100 ]; do
    pids=$(ip netns pids "$namespace")
    [ -n "$pids" ] || break
    # shellcheck disable=SC2086 # one argument each
    kill -KILL $pids 2>/dev/null
    sleep 0.05
    round=$((round + 1))
  done
  ip link del "$namespace" 2>/dev/null # the end here; the other one is in the namespace
  ip netns del "$namespace"
done
ip route del blackhole "$network" 2>/dev/null

# Helpers that were killed leave their sockets behind.
for address in "$directory"/*/exec/containerd/daemon/io.containerd.runtime.v2.task/moby/*/address; do
  [ -f "$address" ] && rm -f "$(sed 's,^unix://,,' "$address")"
done
awk -v beginning="$directory/" 'index($5, beginning) == 1 { print $5 }' /proc/self/mountinfo | sort -r |
  while read -r mount; do umount -l "$mount"; done
find /sys/fs/cgroup -depth -type d -path "*/$prefix/*" -exec rmdir {} + 2>/dev/null
find /sys/fs/cgroup -depth -type d -name "$prefix" -exec rmdir {} + 2>/dev/null
rm -rf "$directory"
