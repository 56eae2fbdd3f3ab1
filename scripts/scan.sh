#!/bin/sh
# Nothing that is committed may name one machine's folders or one registry's address: it must work anywhere.
set -eu
cd "$(dirname "$0")/.."
# Words are parted by [] so that this file does not find itself.
folders='(^|[^A-Za-z0-9_./-])/(r[o]ot|w[o]rk|U[s]ers)/'
registries='(py[p]i|pythonh[o]sted|np[m]js|deb\.d[e]bian|security\.d[e]bian)\.(org|com)|f[i]le:///(opt|r[o]ot|w[o]rk)|--find-l[i]nks|--(extra-)?index-u[r]l'
if git grep --line-number --extended-regexp -I -e "$folders" -e "$registries" -- .; then
    echo "scan: the lines above name a machine's folder or a registry" >&2
    exit 1
fi
