#!/bin/sh
# Installs the peer proxies for `python -m bench.gateway`, each in its own virtual environment outside the checkout.
# Usage: bench/peers.sh [FOLDER]     default: $CTXMEM_PEERS, else ~/.cache/ctxmem/peers
set -eu
folder="${1:-${CTXMEM_PEERS:-$HOME/.cache/ctxmem/peers}}"
mkdir -p "$folder"
install() {
    name="$1"
    shift
    [ -x "$folder/$name/bin/python" ] || python3 -m venv "$folder/$name"
    "$folder/$name/bin/python" -m pip install --quiet "$@" >"$folder/$name.log" 2>&1 ||
        { echo "$name did not install; see $folder/$name.log" >&2; return 1; }
    "$folder/$name/bin/python" -m pip show "${1%%\[*}" 2>/dev/null | sed -n 's/^Version: //p' >"$folder/$name.version" || true
    echo "$name is ready in $folder/$name"
}
status=0
install litellm 'litellm[proxy]' || status=1
install headroom 'headroom-ai[proxy]' || status=1
exit $status
