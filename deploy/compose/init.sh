#!/bin/sh
# What has to be secret is made once and kept in /made/keys, which nobody else mounts; each volume then gets what its role
# needs. Certificates are made anew each time, and taken over by what runs.
set -eu
umask 077
keys=/made/keys
microsfl_user=10001:10001
postgres_user=999:999

secret() { # FILE: a random one in it, once
    [ -e "$1" ] || { python -c 'import secrets; print(secrets.token_urlsafe(32))' > "$1.new" && mv "$1.new" "$1"; }
}

once() { # FROM TO: not again where it was changed since, as by `microsfl rotate`
    [ -e "$2" ] || { cp "$1" "$2.new" && mv "$2.new" "$2"; }
}

for host in split fed-server; do microsfl admin certs "$keys/pki" --host "$host"; done
microsfl admin certs "$keys/pki" --host coordinator --host localhost --host 127.0.0.1

[ -e "$keys/federation/federation.json" ] || rm -rf "$keys/credentials"
[ -e "$keys/federation/federation.json" ] || microsfl admin init "$keys/federation" --name compose \
    --coordinator https://coordinator:8000 --tls-ca "$keys/pki/ca.pem" --credential "$keys/credentials/operator.json" \
    --member 'split-server:split:split-*' --member fed-server:fed \
    --member client:sites:site-0,site-1,site-2,site-3,site-4

for name in records body-id body-secret client-id client-secret; do secret "$keys/$name"; done

mkdir -p /made/coordinator/federation
once "$keys/federation/federation.json" /made/coordinator/federation/federation.json
cp "$keys/pki/coordinator.pem" "$keys/pki/coordinator.key" "$keys/pki/ca.pem" /made/coordinator/
echo "records:5432:microsfl:microsfl:$(cat "$keys/records")" > /made/coordinator/pgpass
cp "$keys/records" /made/records/password

cp "$keys/pki/split.pem" "$keys/pki/split.key" /made/split-server/
cp "$keys/pki/fed-server.pem" "$keys/pki/fed-server.key" /made/fed-server/
once "$keys/credentials/split.json" /made/split-server/split.json
once "$keys/credentials/fed.json" /made/fed-server/fed.json
once "$keys/credentials/sites.json" /made/clients/sites.json
once "$keys/credentials/operator.json" /made/operator/operator.json

store_env() { # AREA FILE
    printf 'AWS_ACCESS_KEY_ID=%s\nAWS_SECRET_ACCESS_KEY=%s\n' "$(cat "$keys/$1-id")" "$(cat "$keys/$1-secret")" > "$2"
}
store_env body /made/split-server/store.env
store_env client /made/fed-server/store.env

identity() { # AREA: who may read and write one bucket, and no other
    printf '{"name":"%s","credentials":[{"accessKey":"%s","secretKey":"%s"}],' "$1" "$(cat "$keys/$1-id")" \
        "$(cat "$keys/$1-secret")"
    printf '"actions":["Read:microsfl-%s","Write:microsfl-%s","List:microsfl-%s"]}' "$1" "$1" "$1"
}
printf '{"identities":[%s,%s]}\n' "$(identity body)" "$(identity client)" > /made/store/s3.json

for role in coordinator split-server fed-server clients operator runs; do chown -R "$microsfl_user" "/made/$role"; done
chown -R "$postgres_user" /made/records
chmod 0755 /made/store && chmod 0444 /made/store/s3.json # the store's image chooses its own user
