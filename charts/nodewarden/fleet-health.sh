#!/usr/bin/env bash
# Says how many nodes of a cluster have a ready agent, and which have none.
#   fleet-health.sh [-n NAMESPACE] [-d DAEMONSET] [-t PERCENT]     defaults: nodewarden nodewarden 95
# Exit codes: 0 as many as wanted, 1 fewer, 2 it could not be asked. What kubectl takes, as KUBECONFIG, is taken.
set -euo pipefail

namespace=nodewarden daemonset=nodewarden threshold=95
usage() { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
while getopts n:d:t:h option; do
  case $option in
    n) namespace=$OPTARG ;;
    d) daemonset=$OPTARG ;;
    t) threshold=$OPTARG ;;
    *) usage ;;
  esac
done
[[ $threshold =~ ^[0-9]+$ ]] && [ "$threshold" -le 100 ] && [ $# -lt $((OPTIND + 1)) ] || usage

# A number that is zero may be left out by the server.
fields='{.status.desiredNumberScheduled} {.status.numberReady} {.status.updatedNumberScheduled} {.status.numberMisscheduled} {.metadata.generation} {.status.observedGeneration}'
status=$(kubectl -n "$namespace" get daemonset "$daemonset" -o jsonpath="${fields//\} \{/\},\{}") || exit 2
IFS=, read -r desired ready updated misscheduled generation observed <<< "$status"
desired=${desired:-0} ready=${ready:-0} updated=${updated:-0} misscheduled=${misscheduled:-0}

echo "desired=$desired ready=$ready updated=$updated misscheduled=$misscheduled"
[ "${observed:-0}" -ge "${generation:-0}" ] || echo "the cluster has not looked at the newest revision yet"
[ "$updated" -ge "$desired" ] || echo "rollout: $((desired - updated)) nodes still have the old revision"
[ "$misscheduled" -eq 0 ] || echo "$misscheduled agents run on nodes that should have none"

# No node that wants one: nothing is missing.
if [ $((ready * 100)) -ge $((desired * threshold)) ]; then
  exit 0
fi
echo "fewer than $threshold % of the nodes have a ready agent; not ready:"
selector=$(kubectl -n "$namespace" get daemonset "$daemonset" \
  -o go-template='{{range $key, $value := .spec.selector.matchLabels}}{{$key}}={{$value}},{{end}}') || exit 2
# A pod that has no node yet wants the one in its affinity.
pods=$(kubectl -n "$namespace" get pods -l "${selector%,}" -o go-template='
{{- range .items}}{{$pod := .}}{{$ready := "False"}}{{range .status.conditions}}{{if eq .type "Ready"}}{{$ready = .status}}{{end}}{{end}}
{{- $ready}} {{with .spec.nodeName}}{{.}}{{else}}
{{- range .spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms}}
{{- range .matchFields}}{{index .values 0}}{{end}}{{end}}{{end}} {{.metadata.name}} {{.status.phase}}
{{- range .status.containerStatuses}}{{with .state.waiting}} {{.reason}}{{end}}{{with .lastState.terminated}} last={{.reason}}{{end}}{{end}}
{{end}}') || exit 2
sed -n 's/^[^T][^ ]* /  /p' <<< "$pods" | sort
made=$(grep -c . <<< "$pods" || true)
[ "$made" -ge "$desired" ] \
  || echo "  $((desired - made)) pods were not even made: kubectl -n $namespace describe daemonset $daemonset"
exit 1
