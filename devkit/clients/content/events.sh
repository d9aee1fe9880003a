#!/bin/sh
# Sends events one by one (server-sent events).
printf 'Content-Type: text/event-stream\r\n\r\n'
for number in 1 2 3; do
  printf 'data: %s\n\n' "$number"
  sleep 0.2
done
