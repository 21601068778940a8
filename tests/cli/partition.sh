#!/usr/bin/env bash
# meshard partition: programs of several kinds checked against the whole, and texts with errors.
source "$(dirname "$0")/lib.sh" "$@"

cat > product.mesh <<'P'
mesh data=2, model=2

func main(%x: f32[5,6] [data, -], %up: f32[6,9] [-, model], %down: f32[9,6] [model, -]) {
  %h = einsum %x, %up {rule = "b i, i j -> b j"} : f32[5,9]
  %g = gelu %h : f32[5,9]
  %y = einsum %g, %down {rule = "b j, j i -> b i"} : f32[5,6] [data, -]
  return %y
}
P
cat > guard.mesh <<'P'
mesh data=2, pipe=2

func main(%x: f32[7] [data]) {
  %g = gelu %x at pipe=1 : f32[7] [data]
  %h = gelu %x : f32[7] [data]
  return %h
}
P
sed 's/return %h/return %g/' guard.mesh > partial.mesh
cat > repeat.mesh <<'P'
mesh data=2

func micro(%i: i32[], %sum: f32[7] [data], %part: f32[3,7] [-, data]) {
  %one = take %part, %i : f32[7] [data]
  %sum.new = add %sum, %one : f32[7] [data]
  return %sum.new -> %sum
}

func main(%parts: f32[3,7] [-, data]) {
  %zero = fill {value = 0.0} : f32[7] [data]
  repeat 3 call micro as micro (i = index, sum = %zero, part = %parts)
  %g = gelu %micro.sum.new : f32[7] [-]
  return %g
}
P
good='replicas agree; bytes received equal the bill; memory equals the plan'
for program in product repeat guard; do
  wants 0 "$meshard" partition $program.mesh --check --json bill.json || continue
  printed "$good" err
  json bill.json 'all(k in j for k in ("version", "mesh", "bytes", "bytes_all_devices", "peak_bytes", "flops", "collectives"))'
done
# What is computed on pipe=1 only is no result of all: the check sees it.
wants 1 "$meshard" partition partial.mesh --check && printed 'replicas DIFFER' err
wants 0 "$meshard" partition product.mesh --explain && printed '%y@1 = all_reduce %y {over = model}' && printed '1 collective a step, 72 bytes on the busiest device'
wants 0 "$meshard" partition product.mesh --mesh 'data=3, model=4' --check && printed 'mesh data=3, model=4' && printed "$good" err
wants 0 "$meshard" partition product.mesh --mode budget=72
wants 0 "$meshard" partition product.mesh --dump passes && [[ -n $(ls passes) ]] || fail '--dump wrote no programs'

# Local programs are what partition makes, not what it takes.
cat > halves.mesh <<'P'
mesh data=2

func main(%x: f32[8,4] [data, -]) {
  %x@1 = start all_gather %x {over = data} : f32[8,4] [-, -]
  wait %x@1
  return %x@1
}
P
refused $'halves.mesh:4:3: all_gather is an op of local programs; in a global one write reshard and a layout' "$meshard" partition halves.mesh

refused 'cannot read the program nothere.mesh; check the path and its permissions' "$meshard" partition nothere.mesh
refused 'cannot read the program .; check the path and its permissions' "$meshard" partition .
refused 'partition takes one program file, not 2' "$meshard" partition product.mesh guard.mesh
refused 'unknown flag --chekc; did you mean "--check"?' "$meshard" partition product.mesh --chekc

# Cut anywhere the text is an error with a place, or a program without its end's newline.
bytes=$(wc -c < product.mesh)
for ((n = 0; n < bytes - 2; n += 17)); do
  head -c "$n" product.mesh > cut.mesh
  refused_like 'cut.mesh:[0-9]+(:[0-9]+)?: .*' "$meshard" partition cut.mesh
done
for ((i = 0; i < 20; ++i)); do
  head -c 500 /dev/urandom > noise.mesh
  wants 2 "$meshard" partition noise.mesh
done
finish
