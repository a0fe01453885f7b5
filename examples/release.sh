#!/usr/bin/env bash
# Converts a model and releases the result only if it does what the original does.
#
#   release.sh ORIGINAL CONVERTED [REPORTS] [OPTIONS OF onnxfix verify...]
#
# ORIGINAL   the model as it was exported
# CONVERTED  where the converted model goes; nothing is there unless everything passed
# REPORTS    a folder for verify.xml (JUnit), verify.md and verify.html [reports]
#
# Options go to `onnxfix verify`: for example `--ticks 60` for streams as long as real ones. Exits as onnxfix does:
# 0 released, 2 usage, 3 not converted, 4 the two differ or nothing is proven.
set -uo pipefail

if (($# < 2)); then
    echo "usage: ${0##*/} ORIGINAL CONVERTED [REPORTS] [OPTIONS...]" >&2
    exit 2
fi
original=$1 converted=$2 reports=reports
shift 2
if (($# > 0)) && [[ $1 != -* ]]; then
    reports=$1
    shift
fi

folder=$(dirname -- "$converted") name=$(basename -- "$converted")

mkdir -p -- "$reports" "$folder" || exit 2
# What an earlier run said is not said of this one, however it ends.
rm -f -- "$reports"/verify.{xml,md,html} || exit 2
work=$(mktemp -d -- "$folder/.candidate.XXXXXX") || exit 3
trap 'rm -rf -- "$work"' EXIT

# A first, short proof comes with the conversion: nothing is written if it fails.
onnxfix convert "$original" "$work/$name" || exit

# A second one, as long and as strict as you like, with reports for people and programs.
onnxfix verify "$original" "$work/$name" --quiet \
    --junit "$reports/verify.xml" --summary "$reports/verify.md" --html "$reports/verify.html" "$@"
code=$?
if ((code != 0)); then
    echo "not released$([[ ! -e $reports/verify.html ]] || echo ": see $reports/verify.html")" >&2
    exit "$code"
fi

# What was verified is what is released: data files first, if there are any, the model last.
find "$work" -mindepth 1 -maxdepth 1 ! -name "$name" -exec mv -f -- {} "$folder/" \; || exit 3
mv -f -- "$work/$name" "$converted" || exit 3
echo "released $converted"
