{{/* Names. A pod's name is a participant's id, which has 64 characters at most: hence 30. */}}
{{- define "microsfl.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 30 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 30 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "microsfl.labels" -}}
{{ include "microsfl.instance" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "microsfl.instance" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* (dict "root" $ "role" "split-server"): what selects its pods. */}}
{{- define "microsfl.selector" -}}
{{ include "microsfl.instance" .root }}
app.kubernetes.io/component: {{ .role }}
{{- end -}}

{{/* (dict "root" $ "role" "split-server"): metadata of an object of a role, under its name or with "suffix" after it. */}}
{{- define "microsfl.metadata" -}}
name: {{ include "microsfl.fullname" .root }}-{{ .role }}{{ .suffix | default "" }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "microsfl.labels" .root | nindent 2 }}
  app.kubernetes.io/component: {{ .role }}
{{- end -}}

{{/* (dict "root" $ "image" "microsfl-coordinator") */}}
{{- define "microsfl.image" -}}
{{- $registry := .root.Values.image.registry -}}
{{- if contains "@" .image -}}
{{- printf "%s%s" (ternary "" (printf "%s/" (trimSuffix "/" $registry)) (empty $registry)) .image -}}
{{- else -}}
{{- printf "%s%s:%s" (ternary "" (printf "%s/" (trimSuffix "/" $registry)) (empty $registry)) .image (default .root.Chart.AppVersion .root.Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "microsfl.scheme" -}}
{{ ternary "http" "https" (eq .Values.tls.mode "insecureHttp") }}
{{- end -}}

{{/* (dict "root" $ "role" "coordinator" "port" 8000) */}}
{{- define "microsfl.url" -}}
{{ include "microsfl.scheme" .root }}://{{ include "microsfl.fullname" .root }}-{{ .role }}.{{ .root.Release.Namespace }}.svc:{{ .port }}
{{- end -}}

{{- define "microsfl.coordinatorUrl" -}}
{{ include "microsfl.url" (dict "root" . "role" "coordinator" "port" 8000) }}
{{- end -}}

{{/* (dict "root" $ "key" "splitServer" "role" "split-server"): the Secret of a member, given or made by the chart. */}}
{{- define "microsfl.memberSecret" -}}
{{- $given := index .root.Values.federation.secrets .key -}}
{{- if .root.Values.federation.create -}}
{{ include "microsfl.fullname" .root }}-{{ .role }}-identity
{{- else -}}
{{ required (printf "federation.secrets.%s: name the Secret, or leave federation.create on" .key) $given }}
{{- end -}}
{{- end -}}

{{/* The identity of the clients has their number in its name: with another number of sites it is another one. */}}
{{- define "microsfl.clientsRole" -}}
clients-{{ .Values.clients.sites | int }}
{{- end -}}

{{/* (dict "root" $ "key" "splitServer" "role" "split-server"): the Secret with ca.crt, tls.crt and tls.key. */}}
{{- define "microsfl.tlsSecret" -}}
{{- if eq .root.Values.tls.mode "existing" -}}
{{ required (printf "tls.secrets.%s: name the Secret with ca.crt, tls.crt and tls.key" .key) (index .root.Values.tls.secrets .key) }}
{{- else -}}
{{ include "microsfl.fullname" .root }}-{{ .role }}-tls
{{- end -}}
{{- end -}}

{{/* (dict "root" $ "role" "split-server"): the names in a server's certificate, one a line. */}}
{{- define "microsfl.dnsNames" -}}
{{- $name := printf "%s-%s" (include "microsfl.fullname" .root) .role -}}
{{- $in := printf "%s.svc" .root.Release.Namespace -}}
{{ $name }}
{{ $name }}.{{ .root.Release.Namespace }}
{{ $name }}.{{ $in }}
{{ $name }}.{{ $in }}.{{ .root.Values.clusterDomain }}
localhost
{{- if eq .role "split-server" }}
{{ $name }}-pods.{{ $in }}
{{ $name }}-pods.{{ $in }}.{{ .root.Values.clusterDomain }}
*.{{ $name }}-pods.{{ $in }}.{{ .root.Values.clusterDomain }}
{{- end }}
{{- if .root.Values.ingress.enabled }}
{{ index .root.Values.ingress.hosts .key }}
{{- end }}
{{- end -}}

{{/* What a server listens with, as environment. */}}
{{- define "microsfl.serverEnv" -}}
- { name: MICROSFL_HOST, value: "0.0.0.0" }
{{- if eq .Values.tls.mode "insecureHttp" }}
- { name: MICROSFL_INSECURE_HTTP, value: "true" }
{{- else }}
- { name: MICROSFL_TLS_CERT, value: /run/microsfl/tls/tls.crt }
- { name: MICROSFL_TLS_KEY, value: /run/microsfl/tls/tls.key }
- { name: MICROSFL_TLS_CA, value: /run/microsfl/tls/ca.crt }
{{- end }}
{{- end -}}

{{/* What somebody who only calls trusts, as environment. */}}
{{- define "microsfl.callerEnv" -}}
{{- if eq .Values.tls.mode "insecureHttp" -}}
- { name: MICROSFL_INSECURE_HTTP, value: "true" }
{{- else -}}
- { name: MICROSFL_TLS_CA, value: /run/microsfl/tls/ca.crt }
{{- end -}}
{{- end -}}

{{- define "microsfl.allowedEnv" -}}
{{- with .Values.models.allowModels }}
- { name: MICROSFL_ALLOW_MODELS, value: {{ join "," . | quote }} }
{{- end }}
{{- end -}}

{{- define "microsfl.allowedDatasetsEnv" -}}
{{- with .Values.models.allowDatasets }}
- { name: MICROSFL_ALLOW_DATASETS, value: {{ join "," . | quote }} }
{{- end }}
{{- end -}}

{{/* (dict "root" $ "area" "body" "store" .Values.splitServer.store "key" "splitServer"): one area of the store. */}}
{{- define "microsfl.storeEnv" -}}
{{- $bundled := .root.Values.bundledStores.enabled -}}
{{- $name := printf "%s-store-%s" (include "microsfl.fullname" .root) .area -}}
{{- $secret := ternary $name .store.existingSecret $bundled -}}
- { name: MICROSFL_STORE_URL, value: {{ ternary (printf "s3://%s/federation" .area) .store.url $bundled | required (printf "%s.store.url: where the %s area is, as s3://bucket/prefix; or leave bundledStores.enabled on" .key .area) | quote }} }
- { name: AWS_REGION, value: {{ .store.region | quote }} }
{{- with ternary (printf "http://%s:8333" $name) .store.endpoint $bundled }}
- { name: AWS_ENDPOINT_URL_S3, value: {{ . | quote }} }
{{- end }}
{{- with $secret }}
- name: AWS_ACCESS_KEY_ID
  valueFrom: { secretKeyRef: { name: {{ . }}, key: accessKeyId } }
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: { secretKeyRef: { name: {{ . }}, key: secretAccessKey } }
{{- end }}
{{- end -}}

{{- define "microsfl.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: { drop: [ALL] }
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{/* (dict "root" $ "of" .Values.coordinator): what the pods of every role of microsfl have. */}}
{{- define "microsfl.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .of.serviceAccountName }}
serviceAccountName: {{ . }}
{{- end }}
{{- with .of.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: { type: RuntimeDefault }
{{- with .of.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .of.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .of.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* (dict "root" $ "tls" SECRET "ca" true): /tmp, certificates, and modules of the user's own. ca: only ca.crt. */}}
{{- define "microsfl.volumes" -}}
- name: tmp
  emptyDir: { sizeLimit: 1Gi }
{{- if ne .root.Values.tls.mode "insecureHttp" }}
- name: tls
  secret:
    secretName: {{ .tls }}
    defaultMode: 0440
    {{- if .ca }}
    items: [{ key: ca.crt, path: ca.crt }]
    {{- end }}
{{- end }}
{{- with .root.Values.models.configMap }}
- name: models
  configMap: { name: {{ . }} }
{{- end }}
{{- end -}}

{{- define "microsfl.mounts" -}}
- { name: tmp, mountPath: /tmp }
{{- if ne .Values.tls.mode "insecureHttp" }}
- { name: tls, mountPath: /run/microsfl/tls, readOnly: true }
{{- end }}
{{- if .Values.models.configMap }}
- { name: models, mountPath: /opt/models, readOnly: true }
{{- end }}
{{- end -}}

{{/* (dict "root" $ "of" .Values.coordinator "role" "coordinator"): metadata of the pods of a role. */}}
{{- define "microsfl.podMetadata" -}}
labels:
  {{- include "microsfl.labels" .root | nindent 2 }}
  app.kubernetes.io/component: {{ .role }}
  {{- with .of.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (.annotations | default dict) .of.podAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* (dict "root" $ "health" PATH "ready" PATH): over TLS the kubelet checks no certificate, and sends nothing secret. */}}
{{- define "microsfl.probes" -}}
{{- $scheme := include "microsfl.scheme" .root | upper -}}
startupProbe:
  httpGet: { path: {{ .health }}, port: http, scheme: {{ $scheme }} }
  periodSeconds: 2
  failureThreshold: 90
livenessProbe:
  httpGet: { path: {{ .health }}, port: http, scheme: {{ $scheme }} }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: { path: {{ .ready }}, port: http, scheme: {{ $scheme }} }
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 2
{{- end -}}

{{/* (dict "root" $ "role" ROLE "port" 8000 "service" VALUES): the Service of a role. */}}
{{- define "microsfl.service" -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "microsfl.metadata" (dict "root" .root "role" .role) | nindent 2 }}
  {{- with .service.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  type: {{ .service.type }}
  selector:
    {{- include "microsfl.selector" (dict "root" .root "role" .role) | nindent 4 }}
  ports:
    - { name: http, port: {{ .port }}, targetPort: http, protocol: TCP }
{{- end -}}

{{/* A list of {cidr, port} as rules. */}}
{{- define "microsfl.egress" -}}
{{- range . }}
- to:
    - ipBlock: { cidr: {{ .cidr }} }
  ports:
    - { port: {{ .port }}, protocol: TCP }
{{- end }}
{{- end -}}
