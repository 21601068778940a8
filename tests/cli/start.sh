#!/usr/bin/env bash
# Ranks that meshard launch starts, with MPI built or not: the same run as in one process, over one host and over two that are
# pretended; ranks that do not come, that differ, that die; signals.
source "$(dirname "$0")/lib.sh" "$@"
launch=("$meshard" launch)
two=("${launch[@]}" --ranks 2 -- "$meshard")
train=(train "${tiny[@]}" --text text)
data=(--plan data --mesh data=2)

wants 0 "${launch[@]}" --ranks 2 -- "${train[@]}" "${data[@]}" --compare 2 --sample 3 && printed 'what was seen is what was billed' && printed ': equal'
[[ $(grep -c '^meshard\|^gpt-tiny' out) == 1 ]] || fail 'the plan is printed by more than one rank'
for hosts in 1 2; do
  wants 0 "${launch[@]}" --ranks 4 --pretend-hosts $hosts -- "${train[@]}" --plan data_tensor --mesh 'data=2, model=2' --compare 2 \
    && printed 'what was seen is what was billed' && printed ': equal'
done
wants 0 "${launch[@]}" --ranks 4 --pretend-hosts 2 -- "${train[@]}" --plan zero3 --mesh data=4 --compare 2 && printed ': equal'
grep -qE 'between 2 hosts, in the whole run: [0-9]+ bytes; on rank 0 [1-9][0-9]* calls in phases, 0 as messages between all pairs' out || fail "$(grep between out)"
# Three ranks on two hosts: no phases.
wants 0 "${launch[@]}" --ranks 3 --pretend-hosts 2 -- train --model gpt-tiny:layers=1,d=16,heads=2 --batch 6 --seq 16 --threads 1 --steps 2 --validate 0 --text text --plan data --mesh data=3 --compare 2 && printed ': equal'
grep -qE 'on rank 0 0 calls in phases, [1-9][0-9]* as messages between all pairs' out || fail "$(grep between out)"
wants 0 "${launch[@]}" --ranks 3 --pretend-hosts 2 -- bench --only hosts --seconds 0 --threads 1
printed 'the hosts have different numbers of ranks: what is put together or gathered goes as messages between all pairs'
wants 0 "${launch[@]}" --ranks 4 --pretend-hosts 2 -- bench --only hosts --seconds 0 --threads 1 --json bench.json
json bench.json 'all(h["phases_bytes"] * (1 if h["kind"] == "all_to_all" else 2) == h["flat_bytes"] > 0 for h in j["across_hosts"]) and len(j["across_hosts"]) == 12'
wants 0 "${launch[@]}" --ranks 2 -- bash -c 'echo $MESHARD_RANK of $MESHARD_SIZE > seen.$MESHARD_RANK'
[[ $(cat seen.0 seen.1) == $'0 of 2\n1 of 2' ]] || fail "the ranks are told other things: $(cat seen.0 seen.1)"

# Flags.
refused 'what shall the ranks run? Write it behind --, as in meshard launch --ranks 4 -- train --text FILE' "${launch[@]}" --ranks 2
refused 'how many ranks shall this host run? Say it with --ranks N' "${launch[@]}" -- train
refused '--first 3 and --ranks 2 make rank 4 the last here, but --size says 4 ranks in all' "${launch[@]}" --ranks 2 --first 3 --size 4 -- train
refused '2 of 4 ranks start here: say by --rendezvous HOST:PORT, or a path on a shared folder, where they meet the others' "${launch[@]}" --ranks 2 --size 4 -- train
refused 'meshard launch starts ranks itself: run it without mpirun' env OMPI_COMM_WORLD_RANK=0 "${launch[@]}" --ranks 2 -- train

refused 'meshard plan starts no ranks: run it without meshard launch' "${two[@]}" plan --model gpt-tiny
refused 'the mesh data=4 has 4 devices, but 2 ranks are running; start 4 (meshard launch --ranks 4), change --mesh, or add --lockstep to run all in one process' \
  "${two[@]}" "${train[@]}" --plan data --mesh data=4
refused '--lockstep runs all devices in one process, but 2 were started; leave out meshard launch or --lockstep' "${two[@]}" "${train[@]}" "${data[@]}" --lockstep

# An error of all ranks, of one, and ranks that differ: one message, status 2.
refused '--text nothere: there is no such file or folder' "${two[@]}" train "${tiny[@]}" --text nothere "${data[@]}"
cat > each <<'S'
#!/usr/bin/env bash
first=$1 second=$2 words=()
shift 2
for word; do [[ $MESHARD_RANK == 1 && $word == "$first" ]] && words+=("$second") || words+=("$word"); done
exec "${words[@]}"
S
chmod +x each
refused 'rank 1: unknown flag --frobnicate' "${launch[@]}" --ranks 2 -- ./each --lockstep --frobnicate "$meshard" "${train[@]}" --lockstep
cp "$meshard" other && echo >> other
refused_like 'rank 0 has another meshard than rank 1: first difference at line 1: rank 0 has "program of [0-9]+ bytes, digest [0-9a-f]{16}", rank 1 has "program of [0-9]+ bytes, digest [0-9a-f]{16}"' \
  "${launch[@]}" --ranks 2 -- ./each "$meshard" ./other "$meshard" "${train[@]}" "${data[@]}"

# Without meshard launch: by a file, by a port, by torchrun's names, as Slurm starts them (a build without MPI).
ranks() {  # ranks COMMAND...: ranks 1 and 0 of it, which get RANK
  checks=$((checks + 1))
  (RANK=1 MESHARD_RANK=1 SLURM_PROCID=1 timeout 30 "$@" > out.1 2> err.1) &
  RANK=0 MESHARD_RANK=0 SLURM_PROCID=0 timeout 30 "$@" > out 2> err
  status=$?
  wait
  [[ $status == 0 && ! -s err.1 ]] && printed 'what was seen is what was billed' || fail "$* ended with status $status: $(tail -n 3 err err.1)"
}
port=$((20000 + $$ % 20000))
ranks env MESHARD_RENDEZVOUS=./meet MESHARD_SIZE=2 "$meshard" "${train[@]}" "${data[@]}"
[[ ! -e meet ]] || fail 'the file by which ranks met is left behind'
ranks env MESHARD_RENDEZVOUS=127.0.0.1:$port SLURM_NTASKS=2 "$meshard" "${train[@]}" "${data[@]}"
ranks env WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=$((port + 1)) "$meshard" "${train[@]}" "${data[@]}"
refused 'rank 0 waited 1 s at ./meet for rank 1; start 2 processes, each with a rank of its own' \
  env MESHARD_MEET_SECONDS=1 MESHARD_RENDEZVOUS=./meet MESHARD_RANK=0 MESHARD_SIZE=2 "$meshard" "${train[@]}" "${data[@]}"
refused 'ranks shall meet at ./meet, but MESHARD_SIZE is not set; give each process its rank and their number, as meshard launch does' \
  env MESHARD_RENDEZVOUS=./meet MESHARD_RANK=0 "$meshard" "${train[@]}"
refused 'MESHARD_RANK="-1": a whole number from 0 on is wanted' env MESHARD_RENDEZVOUS=./meet MESHARD_RANK=-1 MESHARD_SIZE=2 "$meshard" "${train[@]}"

# A rank that dies in the middle of a step is named, and all end.
long=("$meshard" train "${small[@]}" --text text --steps 1000000000)
for victim in 0 3; do
  begin "${launch[@]}" --ranks 4 --pretend-hosts $((1 + victim / 3)) -- bash -c 'echo $$ > id.$MESHARD_RANK; exec "$@"' _ "${long[@]}" --plan data --mesh data=4
  kill -KILL "$(cat id.$victim)"
  ends 137 'the ranks'
  printed "meshard: rank $victim was ended by signal 9 (Killed)" err
  for r in 0 1 2 3; do kill -0 "$(cat id.$r)" 2> kill.err && fail "rank $r lives on"; done
  [[ $(grep -c "rank $victim is gone" err) -ge 1 ]] || fail "nobody says that rank $victim is gone: $(cat err)"
done
for signal in INT TERM USR1; do
  begin "${launch[@]}" --ranks 2 -- "${long[@]}" "${data[@]}"
  kill -$signal "$pid"
  ends 0 "the ranks told to stop by $signal"
  printed "stopped after step $(($(wc -l < log.jsonl) - 1)) by a signal"
  printed 'what was seen is what was billed'
done
finish
