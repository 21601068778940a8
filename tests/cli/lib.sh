# For the scripts beside it: `source lib.sh "$@"` sets $meshard and $mpirun and moves to an empty folder. A check that fails
# says what it wanted and what it got; `finish` ends the script with a status for all of them.
set -uo pipefail
meshard=$1
mpirun=${2:-}
export TERM=dumb  # progress in lines of its own
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
unset "${!SLURM_@}" "${!PMI_@}"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 1
failed=0 checks=0
small=(--model gpt-tiny:layers=1,d=16,heads=2 --batch 4 --seq 16 --threads 1)
tiny=("${small[@]}" --steps 2 --validate 0)  # of train
seq 1 5000 > text  # some training data

fail() {
  failed=$((failed + 1))
  echo "FAILED: $*"
}

# Runs a command within 30 seconds (or $patience): its status in $status, what it printed in the files out and err. mpirun's own words about
# a rank's status are left out of err.
run() {
  checks=$((checks + 1))
  timeout -k 1 "${patience:-30}" "$@" > out 2> err.all
  status=$?
  grep -av -e '^-*$' -e '^Primary job' -e '^a non-zero exit' -e '^mpi[a-z]* detected' -e '^the job to be' -e '^  Process name:' \
    -e '^  Exit code:' err.all > err
}

# wants STATUS COMMAND...: runs it and checks the status.
wants() {
  local want=$1
  shift
  run "$@"
  [[ $status == "$want" ]] && return
  fail "$* ended with status $status, not $want:"
  tail -n 5 out err | cut -c 1-300
  return 1
}

# refused MESSAGE COMMAND...: status 2, nothing on standard output, and on standard error exactly this message, once.
refused() {
  local message="meshard: $1"
  shift
  wants 2 "$@" || return
  [[ $(cat err) == "$message" ]] || fail "$*"$'\n'"  wanted: $message"$'\n'"  got:    $(cat err)"
  [[ ! -s out ]] || fail "$* printed before it refused: $(head -n 3 out)"
}

# refused_like PATTERN COMMAND...: the same with a message that the whole pattern (ERE) must match, for numbers of this machine.
refused_like() {
  local pattern="^meshard: $1\$"
  shift
  wants 2 "$@" || return
  [[ $(cat err) =~ $pattern ]] || fail "$*"$'\n'"  wanted: $pattern"$'\n'"  got:    $(cat err)"
  [[ ! -s out ]] || fail "$* printed before it refused: $(head -n 3 out)"
}

# printed TEXT [FILE]: the last command's output, or FILE, holds this text.
printed() { grep -qF -- "$1" "${2:-out}" || fail "no \"$1\" in ${2:-the output}: $(tail -n 5 "${2:-out}" | cut -c 1-300)"; }

# json FILE EXPRESSION: the file is JSON, and the Python expression over it, called j, is true.
json() { python3 -c 'import json, sys; j = json.load(open(sys.argv[1])); assert eval(sys.argv[2]), j' "$1" "$2" 2> json.err || fail "$1: $2: $(tail -n 1 json.err)"; }

# begin COMMAND...: a training run in the background, its process in $pid, until it has made some steps.
begin() {
  checks=$((checks + 1))
  rm -f log.jsonl
  "$@" --log log.jsonl > out 2> err &
  pid=$!
  for ((i = 0; i < 300; ++i)); do
    [[ -e log.jsonl && $(wc -l < log.jsonl) -ge 3 ]] && break
    sleep 0.1
  done
}

# ends STATUS WHAT: what was begun ends with this status within 15 seconds.
ends() {
  for ((i = 0; i < 150; ++i)); do
    kill -0 "$pid" 2> kill.err || break
    sleep 0.1
  done
  kill -KILL "$pid" 2> kill.err && fail "$2 did not end"
  wait "$pid"
  status=$?
  [[ $status == "$1" ]] || fail "$2 ended with status $status, not $1: $(tail -n 5 out err | cut -c 1-300)"
}

finish() {
  echo "$checks commands, $failed checks failed"
  [[ $failed == 0 ]]
  exit
}
