#!/bin/sh
# Runs as root while the image is built. Puts the check into it, with the names that it asks for.
set -eu

fail() {
  echo "clawker-fw: $*" >&2
  exit 1
}

refused=${REFUSED-example.com} allowed=${ALLOWED-}
[ -n "$refused" ] && [ -n "$allowed" ] || fail "give the options allowed and refused, or nothing would be proven"
case "$refused$allowed" in
  *[!A-Za-z0-9._-]*) fail "'$refused' and '$allowed' must be host names" ;;
esac
command -v getent >/dev/null || fail "the image has no getent, with which names are asked for"

folder=/usr/local/share/clawker-fw
mkdir -p "$folder"
cp "${0%/*}/check" "${0%/*}/start" "$folder/"
printf 'refused=%s\nallowed=%s\n' "$refused" "$allowed" >"$folder/names"
chmod 755 "$folder" "$folder/check" "$folder/start"
chmod 644 "$folder/names"
