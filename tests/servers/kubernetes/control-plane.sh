#!/usr/bin/env bash
# A real Kubernetes control plane on one address, of the programs that install.sh built.
#   control-plane.sh up  DIR      starts it with no data; DIR/kubeconfig is the admin's
#   control-plane.sh run DIR      the same, says "ready", and stops it when its standard input is closed
# WITH="kcm sched"   what runs beside etcd and kube-apiserver; also kwok, which plays the nodes with the annotation
#                    kwok.x-k8s.io/node=fake and their pods
# BIND=127.0.0.1     address to listen on
# PORT=16443         kube-apiserver; etcd takes PORT+1 and +2, the controller-manager +3, the scheduler +4, kwok +5
# NODE_NAME=node-1   the node whose kubelet may come in with the token node-token
set -euo pipefail
[ $# = 2 ] || { sed -n '2,9p' "$0" >&2; exit 2; }

here=$(cd "$(dirname "$0")" && pwd)
bin=${TOOLS:-$here/../../../target/tools/bin}
dir=$(mkdir -p "$2" && cd "$2" && pwd)
state=$dir/state
: "${BIND:=127.0.0.1}" "${PORT:=16443}" "${NODE_NAME:=node-1}"
with=${WITH-kcm sched}

kubectl() { "$bin/kubectl" --kubeconfig "$dir/kubeconfig" "$@"; }

start() { # NAME COMMAND...
  local name=$1
  shift
  setsid nohup "$@" > "$state/$name.log" 2>&1 < /dev/null &
  echo $! > "$state/$name.pid"
}

stop_all() {
  local name pid
  for name in kwok sched kcm apiserver etcd; do
    [ -s "$state/$name.pid" ] || continue
    pid=$(cat "$state/$name.pid")
    kill "$pid" 2> /dev/null || true
    for _ in $(seq 100); do
      kill -0 "$pid" 2> /dev/null || break
      sleep 0.1
    done
    kill -9 "$pid" 2> /dev/null || true
    rm -f "$state/$name.pid"
  done
}

wait_for() { # SECONDS COMMAND...
  local end=$((SECONDS + $1))
  shift
  until "$@" > /dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { echo "waited in vain: $*" >&2; tail -n 5 "$state"/*.log >&2; return 1; }
    sleep 0.2
  done
}

kubeconfig() { # FILE TOKEN
  (
    umask 077
    cat > "$1" <<Y
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://$BIND:$PORT", certificate-authority: "$state/pki/ca.crt"}}]
users: [{name: u, user: {token: "$2"}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
Y
  )
}

certificate() { # NAME SUBJECT EXTENSION
  openssl req -newkey rsa:2048 -nodes -keyout "$1.key" -out "$1.csr" -subj "$2" 2> /dev/null
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -out "$1.crt" \
    -extfile <(printf '%s\n' "$3") 2> /dev/null
}

# Everybody shows a token that is known: who can reach this cluster is on this machine.
secrets() {
  mkdir -p "$state/pki"
  cd "$state/pki"
  openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 3650 -subj /CN=cluster 2> /dev/null
  certificate apiserver /CN=kube-apiserver \
    "subjectAltName=IP:$BIND,IP:127.0.0.1,IP:10.96.0.1,DNS:localhost,DNS:kubernetes.default.svc"
  certificate kubelet-client /O=system:masters/CN=apiserver-kubelet-client "extendedKeyUsage=clientAuth"
  # Of the node's addresses, as the cluster's CA signs it where a kubelet asks for one.
  certificate kubelet "/O=system:nodes/CN=system:node:$NODE_NAME" "subjectAltName=IP:$BIND,DNS:$NODE_NAME"
  openssl genrsa -out sa.key 2048 2> /dev/null
  cat > tokens.csv <<Y
admin-token,admin,admin,system:masters
kcm-token,system:kube-controller-manager,kcm
sched-token,system:kube-scheduler,sched
node-token,system:node:$NODE_NAME,node,system:nodes
Y
  # Every request of an agent is written down.
  cat > audit.yaml <<Y
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules: [{level: Metadata, userGroups: ["system:serviceaccounts:nodewarden"]}, {level: None}]
Y
  cd - > /dev/null
}

up() {
  local etcd=http://$BIND:$((PORT + 1)) peer=http://$BIND:$((PORT + 2)) reconciler=master-count
  stop_all
  rm -rf "$state"
  mkdir -p "$state"
  secrets
  kubeconfig "$dir/kubeconfig" admin-token
  start etcd "$bin/etcd" --name=one --data-dir="$state/etcd" --unsafe-no-fsync --log-level=warn \
    --listen-client-urls="$etcd" --advertise-client-urls="$etcd" --listen-peer-urls="$peer" \
    --initial-advertise-peer-urls="$peer" --initial-cluster="one=$peer"
  # The service of the API server can't lead to loopback.
  [ "$BIND" != 127.0.0.1 ] || reconciler=none
  start apiserver "$bin/kube-apiserver" --etcd-servers="$etcd" --bind-address="$BIND" --secure-port="$PORT" \
    --endpoint-reconciler-type=$reconciler \
    --tls-cert-file="$state/pki/apiserver.crt" --tls-private-key-file="$state/pki/apiserver.key" \
    --client-ca-file="$state/pki/ca.crt" --token-auth-file="$state/pki/tokens.csv" \
    --kubelet-client-certificate="$state/pki/kubelet-client.crt" --kubelet-client-key="$state/pki/kubelet-client.key" \
    --kubelet-preferred-address-types=InternalIP \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true \
    --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$state/pki/sa.key" \
    --service-account-signing-key-file="$state/pki/sa.key" --service-cluster-ip-range=10.96.0.0/16 \
    --audit-policy-file="$state/pki/audit.yaml" --audit-log-path="$state/audit.log" \
    --max-requests-inflight=800 --max-mutating-requests-inflight=400
  wait_for 180 kubectl get --raw /readyz
  for part in $with; do
    start_part "$part"
  done
  wait_for 60 kubectl --namespace default get serviceaccount default
}

start_part() {
  # Nobody renews what says that a node which is played is alive.
  local grace=50s
  [[ " $with " != *" kwok "* ]] || grace=1h
  case $1 in
    kcm)
      kubeconfig "$state/kcm.kubeconfig" kcm-token
      start kcm "$bin/kube-controller-manager" --kubeconfig="$state/kcm.kubeconfig" --leader-elect=false \
        --bind-address="$BIND" --secure-port=$((PORT + 3)) --use-service-account-credentials=true \
        --service-account-private-key-file="$state/pki/sa.key" --root-ca-file="$state/pki/ca.crt" --node-monitor-grace-period=$grace \
        --kube-api-qps=300 --kube-api-burst=600 ;;
    sched)
      kubeconfig "$state/sched.kubeconfig" sched-token
      start sched "$bin/kube-scheduler" --kubeconfig="$state/sched.kubeconfig" --leader-elect=false \
        --bind-address="$BIND" --secure-port=$((PORT + 4)) --kube-api-qps=500 --kube-api-burst=1000 ;;
    kwok)
      start kwok "$bin/kwok" --kubeconfig="$dir/kubeconfig" --config="$here/kwok-stages.yaml" \
        --server-address="$BIND:$((PORT + 5))" --manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake \
        --cidr=10.244.0.0/16 --node-ip=127.0.0.1 ;;
    *) echo "no part $1" >&2; exit 2 ;;
  esac
}

case $1 in
  up) up ;;
  run)
    trap stop_all EXIT
    up
    echo ready
    cat > /dev/null ;;
  *) sed -n '2,9p' "$0" >&2; exit 2 ;;
esac
