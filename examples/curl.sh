#!/bin/sh
# Everything that a subscriber or publisher needs, with nothing but curl.
# Usage: curl.sh [URL]
set -eu
url=${1:-http://127.0.0.1:8080}
channel=demo:prices

say() { printf '\n== %s\n' "$*"; }

say "How should a client connect, and why?"
curl -sS --fail-with-body "$url/negotiate?direction=push"

say "Publish as a backend does. With the same idempotency key again it is not published twice:"
key=curl-$$
for _ in 1 2; do
    curl -sS --fail-with-body "$url/api/v1/publish" -H 'Content-Type: application/json' \
        -d "{\"channel\": \"$channel\", \"event\": \"price\", \"data\": {\"eur\": 41.2}, \"idempotency_key\": \"$key\"}"
    echo
done

say "Publish as a client does, where the namespace lets anyone:"
curl -sS --fail-with-body "$url/emit" -d "{\"publish\": {\"channel\": \"$channel\", \"data\": \"hello\"}}"

say "Where is the channel now? A short poll without a cursor begins at now:"
answer=$(curl -sS --fail-with-body "$url/poll?channel=$channel&timeout=0")
echo "$answer"
cursor=$(printf '%s' "$answer" | sed 's/.*"cursor":"\([^"]*\)".*/\1/')

say "A long poll from there is held until there is something to tell:"
(sleep 1 && curl -sS -o /dev/null "$url/emit" -d "{\"publish\": {\"channel\": \"$channel\", \"data\": \"here it is\"}}") &
curl -sS --fail-with-body "$url/poll?channel=$channel&cursor=$cursor&timeout=20"
wait

say "Server-sent events, from the oldest message that is kept, for two seconds:"
curl -sS -N --max-time 2 "$url/sse?channel=$channel&since=earliest" || [ $? -eq 28 ]

say "The history, newest first:"
curl -sS --fail-with-body "$url/api/v1/history" -H 'Content-Type: application/json' \
    -d "{\"channel\": \"$channel\", \"limit\": 2, \"reverse\": true}"
echo
