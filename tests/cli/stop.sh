#!/usr/bin/env bash
# SIGINT, SIGTERM and SIGUSR1 end a run after the step at hand, on all ranks, with status 0. mpirun hands SIGUSR1 on at once;
# SIGINT and SIGTERM to it reach the ranks as a SIGTERM after odls_base_sigkill_timeout seconds, and its own status is then 1.
source "$(dirname "$0")/lib.sh" "$@"
train=("$meshard" train "${small[@]}" --text text --steps 1000000000)
mpi=("$mpirun" --oversubscribe --mca odls_base_sigkill_timeout 2)

# stops STATUS SIGNAL COMMAND...: starts it, waits for a step, sends the signal, and wants the run to end well within 15 seconds.
stops() {
  local want=$1 signal=$2 pid
  shift 2
  checks=$((checks + 1))
  rm -f log.jsonl
  setsid "$@" --log log.jsonl > out 2> err &
  pid=$!
  for ((i = 0; i < 300; ++i)); do
    [[ -e log.jsonl && $(wc -l < log.jsonl) -ge 3 ]] && break
    sleep 0.1
  done
  kill "-$signal" "$pid"
  for ((i = 0; i < 150; ++i)); do
    kill -0 "$pid" 2> kill.err || break
    sleep 0.1
  done
  kill -KILL "$pid" 2> kill.err && fail "$* did not end on $signal"
  wait "$pid"
  status=$?
  [[ $status == "$want" ]] || fail "$* ended with status $status on $signal, not $want: $(tail -n 5 out err | cut -c 1-300)"
  printed "stopped after step $(($(wc -l < log.jsonl) - 1)) by a signal"
  printed 'what was seen is what was billed'
  [[ $(grep -c 'stopped after' out) == 1 ]] || fail 'more than one rank says that it stopped'
}
for signal in INT TERM; do
  stops 0 $signal "${train[@]}"
  stops 0 $signal "${train[@]}" --lockstep --plan data_tensor --mesh 'data=2, model=2'
  stops 1 $signal "${mpi[@]}" -n 2 "${train[@]}" --plan data --mesh data=2
done
stops 0 USR1 "${mpi[@]}" -n 2 "${train[@]}" --plan data --mesh data=2
finish
