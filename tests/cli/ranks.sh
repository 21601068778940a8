#!/usr/bin/env bash
# Two ranks under mpirun: errors of all and of one alone, ranks started with different things. Each ends with status 2, says its
# message once and does not hang.
source "$(dirname "$0")/lib.sh" "$@"
mpi=("$mpirun" --oversubscribe -n 2)
train=("$meshard" train "${tiny[@]}")
data=(--plan data --mesh data=2)

# each FIRST SECOND COMMAND...: rank 1 runs the command with SECOND in the place of the word FIRST.
cat > each <<'S'
#!/usr/bin/env bash
first=$1 second=$2 words=()
shift 2
for word; do [[ $OMPI_COMM_WORLD_RANK == 1 && $word == "$first" ]] && words+=("$second") || words+=("$word"); done
exec "${words[@]}"
S
chmod +x each

# All ranks.
wants 0 "${mpi[@]}" "${train[@]}" --text text "${data[@]}" --compare 2 --sample 3 --log log.jsonl && printed 'what was seen is what was billed' && printed ': equal'
[[ $(grep -c '^meshard\|^gpt-tiny' out) == 1 ]] || fail 'the plan is printed by more than one rank'
# Blocks that go round rings of two and of four beside products: the losses of one device, and the bytes of the bill.
for ring in '2 tensor_sequence model=2' '2 zero3 data=2' '4 zero3 data=4' '4 tensor_zero3 data=2,model=2'; do
  read -ra r <<< "$ring"
  wants 0 "$mpirun" --oversubscribe -n "${r[0]}" "${train[@]}" --text text --plan "${r[1]}" --mesh "${r[2]}" --ring always --compare 2 \
    && printed 'what was seen is what was billed' && printed ': equal'
done
refused '--text nothere: there is no such file or folder' "${mpi[@]}" "${train[@]}" --text nothere "${data[@]}"
refused 'unknown flag --stpes; did you mean "--steps"?' "${mpi[@]}" "${train[@]}" --stpes 3
refused $'--mesh:1:6: axis data has size 0; a size is 1 or more\n  data=0\n       ^' "${mpi[@]}" "${train[@]}" --text text --plan data --mesh data=0
refused 'the mesh data=2, model=2 has 4 devices, but 2 ranks are running; start 4 (mpirun -n 4), change --mesh, or add --lockstep to run all in one process' \
  "${mpi[@]}" "${train[@]}" --text text --plan tensor --mesh 'data=2, model=2'
refused 'the mesh of one device has 1 device, but 2 ranks are running; start 1 (mpirun -n 1), change --mesh, or add --lockstep to run all in one process' \
  "${mpi[@]}" "${train[@]}" --text text
refused '--lockstep runs all devices in one process, but 2 were started; leave out mpirun or --lockstep' "${mpi[@]}" "${train[@]}" --text text "${data[@]}" --lockstep
refused 'meshard plan starts no ranks: run it without mpirun' "${mpi[@]}" "$meshard" plan --model gpt-tiny
size='[0-9.]+ [KMGTP]iB'
refused_like "the run needs $size on host [^ ]+ \\(2 x $size a device\\), but $size are free; take a smaller --batch, --seq or model, or a mesh and plan that split more" \
  "${mpi[@]}" "$meshard" train --text text --model gpt-1.5b --batch 2048 --seq 128 --threads 1 "${data[@]}"

wants 0 "${mpi[@]}" "$meshard" bench --only collectives --seconds 0 --threads 1 --json bench.json
json bench.json 'j["ranks"] == 2 and len(j["collectives"]) == 20 and all(c["seconds"] > 0 for c in j["collectives"])'

# On two hosts that are pretended: in phases, and by the same losses.
host() { echo -n 2 env "MESHARD_HOST_ID=$1" "${train[@]}" --text text --plan data_tensor --mesh; }
read -ra a <<< "$(host a)"
read -ra b <<< "$(host b)"
wants 0 "$mpirun" --oversubscribe -n "${a[@]}" data=2,model=2 --compare 2 : -n "${b[@]}" data=2,model=2 --compare 2 && printed ': equal' && printed 'between 2 hosts'

# One rank alone.
refused 'rank 1: --text nothere: there is no such file or folder' "${mpi[@]}" ./each text nothere "${train[@]}" --text text "${data[@]}"
refused 'rank 0: --text nothere: there is no such file or folder' "${mpi[@]}" ./each nothere text "${train[@]}" --text nothere "${data[@]}"
refused 'rank 1: unknown flag --frobnicate' "${mpi[@]}" ./each --lockstep --frobnicate "${train[@]}" --text text "${data[@]}" --lockstep
refused 'rank 1: the mesh data=4 has 4 devices, but 2 ranks are running; start 4 (mpirun -n 4), change --mesh, or add --lockstep to run all in one process' \
  "${mpi[@]}" ./each data=2 data=4 "${train[@]}" --text text "${data[@]}"

# Ranks started with different things.
cp text other && echo more >> other
refused_like 'rank 0 has another run than rank 1: first difference at line 13: rank 0 has "--text of 23893 bytes, digest [0-9a-f]+", rank 1 has "--text of 23898 bytes, digest [0-9a-f]+"' \
  "${mpi[@]}" ./each text other "${train[@]}" --text text "${data[@]}"
refused 'rank 0 has another run than rank 1: first difference at line 6: rank 0 has "--seed 41", rank 1 has "--seed 42"' \
  "${mpi[@]}" ./each 41 42 "${train[@]}" --text text "${data[@]}" --seed 41
refused 'rank 0 has another run than rank 1: first difference at line 4: rank 0 has "--steps 2", rank 1 has "--steps 3"' \
  "${mpi[@]}" ./each 2 3 "${train[@]}" --text text "${data[@]}"
refused_like 'rank 0 has another program than rank 1: first difference at line [0-9]+: rank 0 has "    %squares: f32\[\] \[\],", rank 1 has "    %squares: f32\[\] \[\] \+ sum\(data\),"' \
  "${mpi[@]}" ./each data zero1 "${train[@]}" --text text "${data[@]}"

printf 'mesh data=2\n\nfunc main(%%x: f32[4,6] [data, -]) {\n  %%y = gelu %%x : f32[4,6] [-, -]\n  return %%y\n}\n' > a.mesh
sed 's/\[-, -\]$/[data, -]/' a.mesh > b.mesh
head -c 70 a.mesh > cut.mesh
wants 0 "${mpi[@]}" "$meshard" partition a.mesh --check
[[ $(grep -c 'func main' out) == 1 ]] || fail 'the program is printed by more than one rank'
refused_like 'rank 0 has another program than rank 1: first difference at line [0-9]+: rank 0 has "  %y@1 = all_gather %y \{over = data\} : f32\[4,6\] \[-, -\]", rank 1 has "  return %y"' \
  "${mpi[@]}" ./each a.mesh b.mesh "$meshard" partition a.mesh
refused $'rank 1: cut.mesh:4:22: the text ends inside func main, begun at line 3\n    %y = gelu %x : f32[\n                       ^' \
  "${mpi[@]}" ./each a.mesh cut.mesh "$meshard" partition a.mesh
finish
