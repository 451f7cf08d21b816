#!/bin/sh
# Train prior and trunk on one GPU in at most nine minutes, from the repository's root, on what pack.py has put into
# runs/gpu/pack; the weights are in runs/gpu/prior/export and runs/gpu/trunk/export afterwards.
#
#     sh examples/gpu/train.sh          # 1.4 + 6.6 minutes, and one for starting, compiling and validation
#     sh examples/gpu/train.sh --try    # two steps of each on the CPU, to see that it runs before a GPU is there
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
export PYTHONPATH="${here%/examples/gpu}${PYTHONPATH:+:$PYTHONPATH}"
python=${PYTHON:-python3}
mkdir -p runs/gpu
for part in prior trunk; do
    cp "$here/$part.toml" runs/gpu/
    if [ "${1:-}" = --try ]; then
        sed -i 's/^steps = .*/steps = 2/; s/^batch = .*/batch = 2/; s/^workers = .*/workers = 1/; s/^compiled = .*//
            s/^precision = .*//; s/^pairs = .*/pairs = 2/' "runs/gpu/$part.toml"
        export ACCELERATE_USE_CPU=true
    fi
    case $part in prior) minutes=1.4 ;; *) minutes=6.6 ;; esac
    "$python" -c 'import sys; from def_hub.cli import main; sys.exit(main(sys.argv[1:]))' \
        train "runs/gpu/$part.toml" --max-minutes "$minutes"
done
