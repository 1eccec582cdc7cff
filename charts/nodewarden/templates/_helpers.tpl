{{- define "nodewarden.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "nodewarden.fullname" -}}
{{- $name := include "nodewarden.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- /* A DaemonSet can't change it: nothing in here may depend on the version. */ -}}
{{- define "nodewarden.selector" -}}
app.kubernetes.io/name: {{ include "nodewarden.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "nodewarden.labels" -}}
{{ include "nodewarden.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "nodewarden.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "nodewarden.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "nodewarden.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}
{{- end }}

{{- define "nodewarden.priorityClass" -}}
{{- if .Values.priorityClass.name }}
{{- .Values.priorityClass.name }}
{{- else if .Values.priorityClass.create }}
{{- /* Not of a namespace: two releases of the same name must not meet. */ -}}
{{- printf "%s-%s" .Release.Namespace (include "nodewarden.fullname" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "nodewarden.logs" -}}{{ if ne .Values.profile "metrics" }}yes{{ end }}{{- end }}
{{- define "nodewarden.metrics" -}}{{ if ne .Values.profile "logs" }}yes{{ end }}{{- end }}

{{- /* Whether the pod gets a token: only who is asked about pods wants to see one. */ -}}
{{- define "nodewarden.token" -}}{{ if and (include "nodewarden.logs" .) (ne .Values.metadata "path") }}yes{{ end }}{{- end }}

{{- define "nodewarden.config" -}}
{{- $ours := dict "kubernetes" (dict "metadata" .Values.metadata) }}
{{- if not (include "nodewarden.logs" .) }}
{{- $ours = dict "logs" (dict "sources" list) }}
{{- end }}
{{- toYaml (mergeOverwrite $ours (deepCopy .Values.config)) }}
{{- end }}
