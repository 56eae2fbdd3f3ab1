#!/bin/sh
# Makes what compose.yaml mounts, in the folder that it is called in (or PARLEY_DIR): data/, config/, anchors/, secrets/
# with a sealing key. What is there stays. As root the folders are given to the image's user; as another user run compose with
# PARLEY_UID and PARLEY_GID, as this script prints them.
set -eu
umask 077
image=${PARLEY_IMAGE:-prefect-parley}
folder=$(cd "${PARLEY_DIR:-.}" && pwd)

if [ "$(id -u)" = 0 ]; then
    user=10001
    group=10001
else
    user=$(id -u)
    group=$(id -g)
fi

mkdir -p "$folder/data" "$folder/config" "$folder/anchors" "$folder/secrets"
chmod 0700 "$folder/data" "$folder/anchors" "$folder/secrets"
chmod 0755 "$folder/config"
if [ "$(id -u)" = 0 ]; then
    chown "$user:$group" "$folder/data" "$folder/anchors" "$folder/secrets"
fi

# Of PostgreSQL's profile; empty until they are filled in.
for secret in database_url postgres_password; do
    [ -e "$folder/secrets/$secret" ] || : >"$folder/secrets/$secret"
    [ "$(id -u)" != 0 ] || chown "$user:$group" "$folder/secrets/$secret"
done

docker run --rm --network none --read-only --cap-drop ALL --security-opt no-new-privileges --user "$user:$group" \
    --env PYTHONWARNINGS=ignore --volume "$folder/secrets:/secrets" --entrypoint python "$image" \
    -P -m deployments.new_key /secrets/parley_key

if [ "$(id -u)" != 0 ]; then
    echo "start it with: PARLEY_UID=$user PARLEY_GID=$group docker compose up --detach"
fi
