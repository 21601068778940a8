#!/usr/bin/env bash
# SIGINT, SIGTERM and SIGUSR1 end a run after the step at hand, on all ranks, with status 0. mpirun hands SIGUSR1 on at once;
# SIGINT and SIGTERM to it reach the ranks as a SIGTERM after odls_base_sigkill_timeout seconds, and its own status is then 1.
source "$(dirname "$0")/lib.sh" "$@"
train=("$meshard" train "${small[@]}" --text text --steps 1000000000)
mpi=("$mpirun" --oversubscribe --mca odls_base_sigkill_timeout 2)

# stops STATUS SIGNAL COMMAND...: starts it, waits for a step, sends the signal, and wants the run to end well within 15 seconds.
stops() {
  local want=$1 signal=$2
  shift 2
  begin setsid "$@"
  kill "-$signal" "$pid"
  ends "$want" "$* on $signal"
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
