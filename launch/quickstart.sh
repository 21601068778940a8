#!/usr/bin/env bash
# Installs what is missing, builds meshard, and trains a small GPT over 4 MPI ranks, on the mesh data=2, model=2, on this
# repository's own text, byte by byte. Ends with a generated sample and a comparison with one rank alone.
#   launch/quickstart.sh [--text FILE|DIR] [flags of meshard train, which override those below]
# MESHARD_BUILD names the build folder, "build" by default.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${MESHARD_BUILD:-$root/build}

# Name and value of each flag of this script; one that the caller gives takes the place of ours.
defaults=(
  --model gpt-mini --mesh "data=2, model=2" --plan data_tensor --text "$root"
  --batch 8 --seq 64 --steps 600 --rate 3e-3 --sample 200 --compare 20
)
flags=("$@")
mesh=
for ((i = 0; i < ${#flags[@]}; ++i)); do
  case ${flags[i]} in
    --mesh) mesh=${flags[i + 1]:-} ;;
    --mesh=*) mesh=${flags[i]#--mesh=} ;;
  esac
done
for ((i = 0; i < ${#defaults[@]}; i += 2)); do
  name=${defaults[i]} given=
  for flag in "$@"; do [[ $flag == "$name" || $flag == "$name"=* ]] && given=yes; done
  [[ $given ]] || flags+=("$name" "${defaults[i + 1]}")
done

# One rank for each device of the mesh. A mesh that is wrong is for meshard to refuse.
ranks=1
for size in $(grep -oE '= *[0-9]{1,4}' <<<"${mesh:-data=2, model=2}" | tr -d '= '); do ranks=$((ranks * 10#$size)); done
((ranks >= 1 && ranks <= 1024)) || ranks=4

"$root/launch/install_packages.sh"
"$root/launch/build.sh" "$build" meshard

# In a container everything runs as root.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
# mpirun gives its ranks a terminal in any case: this tells them that its output goes to none.
[[ -t 1 ]] || export TERM=dumb

# mpirun ends its ranks a second after SIGINT or SIGTERM. SIGUSR1 it hands on, and they stop after the step at hand. So it
# stands in a session of its own, which Ctrl-C does not reach, and this script passes the signals on; a second one ends it.
setsid mpirun -n "$ranks" --oversubscribe --bind-to none "$build/launch/meshard" train "${flags[@]}" </dev/null &
mpirun=$!
stop() {
  kill -USR1 "$mpirun"
  trap 'kill -TERM "$mpirun"' INT TERM HUP
}
trap stop INT TERM HUP
# A signal ends the wait, not the run.
while wait "$mpirun" || kill -0 "$mpirun" 2>/dev/null; do
  kill -0 "$mpirun" 2>/dev/null || break
done
wait "$mpirun"
