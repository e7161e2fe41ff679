#!/bin/sh
# gpu-check: this script finds a Python for the zip archive that follows it in the same file.
# The PATH of process 1 comes first: a login shell may have lost the image's own Python.
first=$( (tr '\0' '\n' </proc/1/environ | sed -n 's/^PATH=//p') 2>/dev/null )
IFS=:
set -f
for directory in $first $PATH /opt/conda/bin /usr/local/bin /usr/bin /bin; do
    case $directory in /*) ;; *) continue ;; esac
    for name in python3 python python3.13 python3.12 python3.11 python3.10 python3.9; do
        python=$directory/$name
        [ -x "$python" ] || continue
        "$python" -I -S -c 'import sys, ctypes, select, _posixsubprocess; sys.exit(sys.version_info < (3, 9))' \
            </dev/null >/dev/null 2>&1 && exec "$python" -I -S "$0" "$@"
    done
done
summary='GPU check: not completed - no Python 3.9 or later was found in this image. Choose an image with Python.'
for argument in "$@"; do
    [ "$argument" = --json ] && echo "{\"schema\": 1, \"verdict\": \"unknown\", \"summary\": \"$summary\"}" && exit 3
done
echo "$summary" >&2
exit 3
