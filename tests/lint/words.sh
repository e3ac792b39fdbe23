#!/bin/sh
# No unfinished marks, and nothing that points out of the project: paths of one machine, package mirrors.
# (A letter in brackets keeps this file from finding itself.)
set -u
rc=0
forbid() {
    if git grep -nIE --untracked "$1" -- . ':!tests/fuzz/corpus' ':!LICENSE'; then
        echo "^ $2" >&2
        rc=1
    fi
}
forbid '\b(TOD[O]|FIXM[E]|XX[X]|HAC[K])\b' 'unfinished: finish it, or leave it out'
forbid '(^|[^a-z])/wor[k]/|(\.\./|[" ])share[d]/|/tmp/w[t]/' 'path of one machine'
forbid '(deb|security|snapshot)\.debia[n]\.org|pyp[i]\.org|npmj[s]\.org|docke[r]\.io/|gc[r]\.io|ghc[r]\.io' 'a registry is named by the machine, not by the tree'
exit $rc
