#!/bin/sh
# Prints our licence and those of the modules that are linked into the programs:
# they ask for it wherever the binaries go.
set -eu
cd "$(dirname "$0")/.."
cat <<'HEAD'
bloq-agent, bloq-token and bloq-sandbox are under this licence:

HEAD
cat LICENSE
CGO_ENABLED=0 go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' ./cmd/... | sort -u |
	while read -r path version dir; do
		printf '\n%s\nThey contain %s %s:\n\n' "$(printf '%070d' 0 | tr 0 -)" "$path" "$version"
		cat "$dir"/[Ll][Ii][Cc][Ee][Nn][SsCc][Ee]*
		[ ! -f "$dir/NOTICE" ] || cat "$dir/NOTICE"
	done
printf '\n%s\nThey contain the standard library of Go:\n\n' "$(printf '%070d' 0 | tr 0 -)"
cat "$(go env GOROOT)/LICENSE"
