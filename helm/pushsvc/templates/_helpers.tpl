{{- define "pushsvc.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" }}
{{- end }}

{{/* At most 52 characters: "-valkey-0" and the like are put behind it, and a name has 63. */}}
{{- define "pushsvc.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* What selects the pods of a component: list <root> <component>. */}}
{{- define "pushsvc.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "pushsvc.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* Labels of a resource: list <root> <component>. */}}
{{- define "pushsvc.labels" -}}
{{- $root := index . 0 -}}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "pushsvc.selectorLabels" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* An image: list <image values> <default tag>. */}}
{{- define "pushsvc.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default (index . 1) $image.tag }}
{{- end }}
{{- end }}

{{- define "pushsvc.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "pushsvc.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/*
How many pods run, where an upgrade has to say so: empty for an installation that scaled from the start.
Helm takes back a field that it wrote once, and a Deployment without `replicas` is one pod. So when autoscaling is
turned on, the number stays in the manifest, as it is at that moment, and an annotation remembers it for the next upgrades.
*/}}
{{- define "pushsvc.keptReplicas" -}}
{{- $name := include "pushsvc.fullname" . }}
{{- $deployment := lookup "apps/v1" "Deployment" .Release.Namespace $name }}
{{- if $deployment }}
{{- $scaler := lookup "autoscaling/v2" "HorizontalPodAutoscaler" .Release.Namespace $name }}
{{- if or (not $scaler) (dig "metadata" "annotations" "pushsvc-replicas" "" $deployment) }}
{{- $deployment.spec.replicas }}
{{- end }}
{{- end }}
{{- end }}

{{/* A setting as the environment has it. YAML numbers are floats here, and 1048576 must not become 1.048576e+06. */}}
{{- define "pushsvc.value" -}}
{{- if kindIs "slice" . -}}
{{ join "," . }}
{{- else if and (kindIs "float64" .) (eq . (floor .)) -}}
{{ int64 . }}
{{- else -}}
{{ . }}
{{- end }}
{{- end }}

{{- define "pushsvc.redisUrl" -}}
{{- if .Values.valkey.enabled -}}
redis://{{ include "pushsvc.fullname" . }}-valkey:6379/0
{{- else -}}
{{ .Values.redis.url }}
{{- end }}
{{- end }}

{{/* The ports that Redis may have, by comma. */}}
{{- define "pushsvc.redisPorts" -}}
{{- $ports := list "6379" }}
{{- range regexFindAll ":[0-9]+(,|/|\\?|$)" .Values.redis.url -1 }}
{{- $ports = append $ports (regexFind "[0-9]+" .) }}
{{- end }}
{{- range .Values.networkPolicy.redisPorts }}
{{- $ports = append $ports (int64 . | toString) }}
{{- end }}
{{- $ports | uniq | join "," }}
{{- end }}

{{/* The port of an HTTP URL. */}}
{{- define "pushsvc.urlPort" -}}
{{- $port := regexFind ":[0-9]+$" (urlParse .).host | trimPrefix ":" -}}
{{ default (ternary "443" "80" (hasPrefix "https:" .)) $port }}
{{- end }}

{{/* Secrets that the pods read as files, as a YAML list of: name, secret, keys (all of them, where none is named). A directory is mounted whole, not by subPath, so that a rotation is seen. */}}
{{- define "pushsvc.secretFiles" -}}
{{- $own := include "pushsvc.fullname" . -}}
{{- with .Values.auth.jwt }}
{{- if or .secret .existingSecret }}
- {name: jwt, secret: {{ default $own .existingSecret }}, keys: [jwt-secret]}
{{- end }}
{{- end }}
{{- with .Values.auth.existingSecret }}
- {name: auth, secret: {{ . }}, keys: []}
{{- end }}
{{- if .Values.valkey.enabled }}
- {name: redis, secret: {{ default (printf "%s-valkey" $own) .Values.valkey.existingSecret }}, keys: [redis-password]}
{{- else if and .Values.redis.url (or .Values.redis.existingSecret .Values.redis.password) }}
- {name: redis, secret: {{ default $own .Values.redis.existingSecret }}, keys: [redis-password]}
{{- end }}
{{- with .Values.redis.sentinel.existingSecret }}
- {name: sentinel, secret: {{ . }}, keys: [sentinel-password]}
{{- end }}
{{- with .Values.redis.tls.caSecret }}
- {name: redis-ca, secret: {{ . }}, keys: [ca.crt]}
{{- end }}
{{- with .Values.auth.jwt.caSecret }}
- {name: jwt-ca, secret: {{ . }}, keys: [ca.crt]}
{{- end }}
{{- with .Values.redis.tls.certSecret }}
- {name: redis-cert, secret: {{ . }}, keys: [tls.crt, tls.key]}
{{- end }}
{{- if .Values.webhook.url }}
- {name: webhook, secret: {{ default $own .Values.webhook.existingSecret }}, keys: [webhook-secret]}
{{- end }}
{{- with .Values.push }}
{{- if or .vapid.existingSecret .vapid.key }}
- {name: vapid, secret: {{ default $own .vapid.existingSecret }}, keys: [vapid.pem]}
{{- end }}
{{- if or .apns.existingSecret .apns.key }}
- {name: apns, secret: {{ default $own .apns.existingSecret }}, keys: [apns.p8]}
{{- end }}
{{- if or .fcm.existingSecret .fcm.credentials }}
- {name: fcm, secret: {{ default $own .fcm.existingSecret }}, keys: [fcm.json]}
{{- end }}
{{- with .caSecret }}
- {name: push-ca, secret: {{ . }}, keys: [ca.crt]}
{{- end }}
{{- end }}
{{- with .Values.tls.existingSecret }}
- {name: tls, secret: {{ . }}, keys: [tls.crt, tls.key]}
{{- end }}
{{- end }}

{{/* The settings, none of them secret, as a YAML map. */}}
{{- define "pushsvc.config" -}}
{{- range $name, $value := .Values.settings }}
PUSHSVC_{{ $name | snakecase | upper }}: {{ include "pushsvc.value" $value | quote }}
{{- end }}
PUSHSVC_PORT: {{ .Values.containerPorts.public | quote }}
PUSHSVC_ADMIN_PORT: {{ .Values.containerPorts.admin | quote }}
{{- with include "pushsvc.redisUrl" . }}
PUSHSVC_REDIS_URL: {{ . | quote }}
{{- end }}
{{- with .Values.redis.username }}
PUSHSVC_REDIS_USERNAME: {{ . | quote }}
{{- end }}
{{- with .Values.redis.sentinel.username }}
PUSHSVC_REDIS_SENTINEL_USERNAME: {{ . | quote }}
{{- end }}
{{- range include "pushsvc.secretFiles" . | fromYamlArray }}
{{- if eq .name "jwt" }}
PUSHSVC_JWT_SECRET_FILE: /etc/pushsvc/jwt/jwt-secret
{{- else if eq .name "auth" }}
PUSHSVC_AUTH_FILE: /etc/pushsvc/auth/auth.toml
{{- else if eq .name "jwt-ca" }}
PUSHSVC_JWT_CA_FILE: /etc/pushsvc/jwt-ca/ca.crt
{{- else if eq .name "redis" }}
PUSHSVC_REDIS_PASSWORD_FILE: /etc/pushsvc/redis/redis-password
{{- else if eq .name "sentinel" }}
PUSHSVC_REDIS_SENTINEL_PASSWORD_FILE: /etc/pushsvc/sentinel/sentinel-password
{{- else if eq .name "redis-ca" }}
PUSHSVC_REDIS_CA_FILE: /etc/pushsvc/redis-ca/ca.crt
{{- else if eq .name "redis-cert" }}
PUSHSVC_REDIS_CERT_FILE: /etc/pushsvc/redis-cert/tls.crt
PUSHSVC_REDIS_KEY_FILE: /etc/pushsvc/redis-cert/tls.key
{{- else if eq .name "webhook" }}
PUSHSVC_WEBHOOK_SECRET_FILE: /etc/pushsvc/webhook/webhook-secret
{{- else if eq .name "vapid" }}
PUSHSVC_PUSH_VAPID_KEY_FILE: /etc/pushsvc/vapid/vapid.pem
{{- else if eq .name "apns" }}
PUSHSVC_PUSH_APNS_KEY_FILE: /etc/pushsvc/apns/apns.p8
{{- else if eq .name "fcm" }}
PUSHSVC_PUSH_FCM_CREDENTIALS_FILE: /etc/pushsvc/fcm/fcm.json
{{- else if eq .name "push-ca" }}
PUSHSVC_PUSH_CA_FILE: /etc/pushsvc/push-ca/ca.crt
{{- else if eq .name "tls" }}
PUSHSVC_TLS_CERT_FILE: /etc/pushsvc/tls/tls.crt
PUSHSVC_TLS_KEY_FILE: /etc/pushsvc/tls/tls.key
{{- end }}
{{- end }}
{{- if not .Values.auth.existingSecret }}
{{- with .Values.auth.jwt }}
{{- if .publicKey }}
PUSHSVC_JWT_PUBLIC_KEY_FILE: /etc/pushsvc/jwt-public-key/jwt.pem
{{- end }}
{{- with .jwksUrl }}
PUSHSVC_JWT_JWKS_URL: {{ . | quote }}
{{- end }}
{{- with .issuer }}
PUSHSVC_JWT_ISSUER: {{ . | quote }}
{{- end }}
PUSHSVC_JWT_AUDIENCE: {{ .audience | quote }}
{{- with .algorithms }}
PUSHSVC_JWT_ALGORITHMS: {{ join "," . | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.webhook.url }}
PUSHSVC_WEBHOOK_URL: {{ . | quote }}
{{- end }}
{{- with .Values.push.vapid.subject }}
PUSHSVC_PUSH_VAPID_SUBJECT: {{ . | quote }}
{{- end }}
{{- with .Values.push.apns.keyId }}
PUSHSVC_PUSH_APNS_KEY_ID: {{ . | quote }}
{{- end }}
{{- with .Values.push.apns.teamId }}
PUSHSVC_PUSH_APNS_TEAM_ID: {{ . | quote }}
{{- end }}
PUSHSVC_DRAIN_DELAY_SECONDS: {{ include "pushsvc.value" .Values.drain.delaySeconds | quote }}
PUSHSVC_DRAIN_SECONDS: {{ include "pushsvc.value" .Values.drain.seconds | quote }}
{{- if .Values.tracing.enabled }}
PUSHSVC_TRACING: otlp
OTEL_SERVICE_NAME: {{ include "pushsvc.fullname" . }}
{{- with .Values.tracing.endpoint }}
OTEL_EXPORTER_OTLP_ENDPOINT: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}
