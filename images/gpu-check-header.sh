#!/bin/sh
# gpu-check: this script finds a Python for the zip archive that follows it in the same file.
LIMIT_S=3
MOST_HUNG=3 # with that, the script ends within 10 s
hung=0

# Whether $1 is a Python that can run the archive. Its exit code is computed from ours, so that a program that does
# nothing, or a wrapper that loses exit codes and with them the verdict, is none. No pipe is read: what a candidate has
# started could hold it. "timeout" is not everywhere, and its options differ.
works() {
    "$1" -I -S -c "$proof" "$question" </dev/null >/dev/null 2>&1 &
    candidate=$!
    (
        trap 'kill $!; exit' USR1
        sleep "$LIMIT_S" &
        wait $! && kill -9 "$candidate"
    ) </dev/null >/dev/null 2>&1 &
    watchdog=$!
    wait "$candidate" 2>/dev/null
    status=$?
    kill -USR1 "$watchdog" 2>/dev/null
    wait "$watchdog" 2>/dev/null
    [ "$status" -ne 137 ] || hung=$((hung + 1)) # 128 + SIGKILL
    [ "$status" -eq $((question + 3)) ]
}

question=$(($$ % 50 + 50))
proof='import sys, ctypes, select, _posixsubprocess; sys.exit(sys.version_info >= (3, 9) and int(sys.argv[1]) + 3)'
# The PATH of process 1 comes first: a login shell may have lost the image's own Python.
first=$( (tr '\0' '\n' </proc/1/environ | sed -n 's/^PATH=//p') 2>/dev/null )
IFS=:
set -f
for directory in $first $PATH /opt/conda/bin /usr/local/bin /usr/bin /bin; do
    case $directory in /*) ;; *) continue ;; esac
    for name in python3 python python3.13 python3.12 python3.11 python3.10 python3.9; do
        python=$directory/$name
        [ -x "$python" ] && [ "$hung" -lt "$MOST_HUNG" ] || continue
        works "$python" && exec "$python" -I -S "$0" "$@"
    done
done
summary='GPU check: not completed - no Python 3.9 or later was found in this image. Choose an image with Python.'
[ "$hung" -eq 0 ] || summary='GPU check: not completed - the Python in this image did not answer. Try again, or use another image.'
for argument in "$@"; do
    [ "$argument" = --json ] && echo "{\"schema\": 1, \"verdict\": \"unknown\", \"summary\": \"$summary\"}" && exit 3
done
echo "$summary" >&2
exit 3
