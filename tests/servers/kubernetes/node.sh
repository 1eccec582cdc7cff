#!/usr/bin/env bash
# One real node, kubelet and containerd, with its control plane, in namespaces of its own.
#   node.sh run   DIR             starts it, says "ready", and ends it all when its standard input is closed
#   node.sh image DIR FILE.tar    loads an OCI archive into it
#   node.sh exec  DIR COMMAND...  runs a command in it, in the folder /
# NUMBER=0             another one for each node that is up at the same time
# LOG_MAX_SIZE=1Mi     at which the kubelet rotates a container's log; it looks every 3 s and keeps 3 files
# The node is node-1 with the address 10.99.NUMBER.1; this machine is 10.99.NUMBER.254 to it, and nothing else can be reached
# from there. Pods get 10.88.0.0/24; 10.96.0.1:443 leads to kube-apiserver at port 16443; DIR/kubeconfig is the admin's.
# /var/log, /var/lib, /etc/kubernetes/manifests and /run of the node are folders of DIR/node.
# Needs root, version 1 cgroups, iptables and iproute2, and what `install.sh cluster` unpacks and builds.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,12p' "$0" >&2; exit 2; }

here=$(cd "$(dirname "$0")" && pwd)
bin=$(cd "${TOOLS:-$here/../../../target/tools/bin}" && pwd)
command=$1
dir=$(mkdir -p "$2" && cd "$2" && pwd)
number=${NUMBER:-0}
node=$dir/node
runtime=$(cd "$here/../../../target/servers/containerd" && pwd)
PATH=$runtime/usr/bin:$runtime/usr/sbin:$PATH
export BIND=10.99.$number.1 PORT=16443 NODE_NAME=node-1 TOOLS=$bin
controllers="cpu cpuacct cpuset memory devices freezer blkio pids"

# The pid, out here, of the node's first process.
first() { tr -d ' ' < "/proc/$(cat "$node/holder.pid")/task/$(cat "$node/holder.pid")/children"; }
inside() { nsenter -t "$(first)" -m -n -C -p -u -- "$@"; }

start() { # NAME COMMAND...
  local name=$1
  shift
  inside setsid "$@" > "$node/$name.log" 2>&1 < /dev/null &
}

wait_for() { # SECONDS COMMAND...
  local end=$((SECONDS + $1))
  shift
  until "$@" > /dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { echo "waited in vain: $*" >&2; tail -n 5 "$node"/*.log >&2; return 1; }
    sleep 0.2
  done
}

# The first process in the fresh namespaces lays out mounts and network, then stays for what is orphaned.
hold() {
  mount --make-rprivate /
  hostname node-1
  # This network's devices.
  mount -t sysfs sysfs /sys
  # Of every hierarchy our own part only.
  mount -t tmpfs cg /sys/fs/cgroup
  for controller in $controllers; do
    [ -d "$node/cgroups/$controller" ] || continue
    mkdir -p "/sys/fs/cgroup/$controller"
    mount -t cgroup -o "$controller" cg "/sys/fs/cgroup/$controller"
  done
  mkdir -p /sys/fs/cgroup/systemd
  mount -t cgroup -o none,name=systemd cg /sys/fs/cgroup/systemd
  mkdir -p "$node/varlog" "$node/varlib" "$node/manifests" /etc/kubernetes/manifests
  mount --bind "$node/manifests" /etc/kubernetes/manifests
  mount --bind "$node/varlog" /var/log
  mount --bind "$node/varlib" /var/lib
  mkdir -p /var/lib/kubelet
  mount -t tmpfs run /run
  mkdir -p /run/lock
  # As on a real host: pods see what is mounted later.
  mount --make-rshared /
  printf '127.0.0.1 localhost\n%s node-1\n' "$BIND" > "$node/hosts"
  mount --bind "$node/hosts" /etc/hosts
  # Nobody answers: other names fail at once.
  echo 'nameserver 127.0.0.1' > "$node/resolv.conf"
  mount --bind "$node/resolv.conf" "$(realpath /etc/resolv.conf)"
  ip link set lo up
  : > "$node/laid-out"
  while :; do
    sleep 60 &
    wait $!
  done
}

# A cable between this machine and the node.
connect() {
  ip link add "nodewarden$number" type veth peer name k0 netns "$(first)"
  ip addr add "10.99.$number.254/24" dev "nodewarden$number"
  ip link set "nodewarden$number" up
  inside ip addr add "$BIND/24" dev k0
  inside ip link set k0 up
  inside ip route add default dev k0
  inside sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.route_localnet=1
  local chain
  for chain in PREROUTING OUTPUT; do
    inside iptables -t nat -A $chain -d 10.96.0.1/32 -p tcp --dport 443 -j DNAT --to-destination "$BIND:$PORT"
  done
  # Pods have addresses that nobody else knows.
  inside iptables -t nat -A POSTROUTING -s 10.88.0.0/24 -d "10.99.$number.254/32" -j MASQUERADE
}

own_cgroups() {
  local controller own group
  for controller in $controllers systemd; do
    [ -d "/sys/fs/cgroup/$controller" ] || continue
    own=$(sed -n "s/^[0-9]*:\(name=\)\?$controller:\(.*\)/\2/p" /proc/self/cgroup)
    [ "$own" != / ] || own=
    group=/sys/fs/cgroup/$controller$own/nodewarden-node-$number
    mkdir -p "$group" "$node/cgroups/$controller"
    echo "$group" > "$node/cgroups/$controller/path"
    [ "$controller" != cpuset ] || for file in mems cpus; do
      cat "/sys/fs/cgroup/cpuset$own/cpuset.$file" > "$group/cpuset.$file"
    done
  done
}

configure() {
  cat > "$node/containerd.toml" <<T
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$runtime/usr/lib/cni"
    conf_dir = "$node/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
T
  cat > "$node/cni/10-pods.conflist" <<T
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "ptp", "ipMasq": false, "ipam": {"type": "host-local", "dataDir": "/var/lib/cni-data",
    "ranges": [[{"subnet": "10.88.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}]}
T
  cat > "$node/kubelet.yaml" <<T
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 0.0.0.0
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: "$dir/state/pki/ca.crt"}}
authorization: {mode: Webhook}
tlsCertFile: $dir/state/pki/kubelet.crt
tlsPrivateKeyFile: $dir/state/pki/kubelet.key
staticPodPath: /etc/kubernetes/manifests
volumePluginDir: /var/lib/kubelet/plugins
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
evictionHard: {memory.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%"}
imageGCHighThresholdPercent: 100
syncFrequency: 10s
fileCheckFrequency: 2s
containerLogMaxSize: ${LOG_MAX_SIZE:-1Mi}
containerLogMaxFiles: 3
containerLogMonitorInterval: 3s
nodeStatusUpdateFrequency: 5s
clusterDomain: cluster.local
resolvConf: ""
T
  sed 's/admin-token/node-token/' "$dir/kubeconfig" > "$node/kubelet.kubeconfig"
}

up() {
  [ "$(id -u)" = 0 ] || { echo "a node needs root" >&2; exit 1; }
  [ -e /sys/fs/cgroup/memory/tasks ] || { echo "this machine has no version 1 cgroups" >&2; exit 1; }
  case $dir/ in /var/lib/* | /var/log/* | /run/*) echo "$dir is not visible in the node" >&2; exit 1 ;; esac
  [ ! -e "/sys/class/net/nodewarden$number" ] || { echo "node $number is up already: choose another NUMBER" >&2; exit 1; }
  rm -rf "$node"
  mkdir -p "$node/cni" "$node/cgroups"
  own_cgroups
  # shellcheck disable=SC2016  # For the shell in there.
  setsid bash -c '
    for file in "$1"/cgroups/*/path; do echo $$ > "$(cat "$file")/cgroup.procs"; done
    exec unshare -m -n -C -p -u --fork --kill-child --mount-proc "$0" hold "$2"' "$0" "$node" "$dir" \
    > "$node/holder.log" 2>&1 < /dev/null &
  echo $! > "$node/holder.pid"
  # Its end is no news.
  disown
  wait_for 20 test -e "$node/laid-out"
  connect
  inside env WITH="kcm sched" "$here/control-plane.sh" up "$dir"
  configure
  start containerd containerd -c "$node/containerd.toml"
  wait_for 20 inside test -S /run/containerd/containerd.sock
  load "$here/../../../target/servers/images/pause.tar"
  start kubelet "$bin/kubelet" --config="$node/kubelet.yaml" --kubeconfig="$node/kubelet.kubeconfig" \
    --hostname-override=node-1 --node-ip="$BIND" --v=2
  wait_for 90 "$bin/kubectl" --kubeconfig "$dir/kubeconfig" wait --for=condition=Ready node/node-1 --timeout=5s
}

# The end of the first process is the end of all others of the node, and of its network.
down() {
  if [ -s "$node/holder.pid" ]; then
    kill -9 "$(cat "$node/holder.pid")" 2> /dev/null || true
    rm -f "$node/holder.pid"
    wait_for 20 test ! -e "/sys/class/net/nodewarden$number" || true
  fi
  local file
  for file in "$node"/cgroups/*/path; do
    [ ! -s "$file" ] || find "$(cat "$file")" -depth -type d -exec rmdir {} \; 2> /dev/null || true
  done
}

load() { inside ctr --namespace k8s.io images import - < "$1" > /dev/null; }

case $command in
  run)
    trap down EXIT
    up
    echo ready
    cat > /dev/null ;;
  hold) hold ;;
  image) load "${3:?FILE.tar}" ;;
  exec)
    shift 2
    inside "$@" ;;
  *) sed -n '2,12p' "$0" >&2; exit 2 ;;
esac
