#!/usr/bin/env bash
# What a launcher's variables say, without the launcher.
source "$(dirname "$0")/lib.sh" "$@"
train=("$meshard" train "${tiny[@]}" --text text)

# One process: a batch script of Slurm's (which has a process id, too), one task of a step.
wants 0 env SLURM_JOB_ID=1 SLURM_NTASKS=4 SLURM_PROCID=0 "${train[@]}" --lockstep --plan data --mesh data=2
wants 0 env SLURM_JOB_ID=1 SLURM_NTASKS=4 SLURM_PROCID=0 "$meshard" plan --model gpt-tiny
wants 0 env SLURM_STEP_NUM_TASKS=1 SLURM_NTASKS=4 SLURM_PROCID=0 "${train[@]}"

# Several tasks that MPI can't see, since Slurm started them without a PMI that it knows: an error by task 0, and no hang.
if [[ -n $mpirun ]]; then
  apart='the launcher started 4 processes, but MPI sees 1; with Slurm use srun --mpi=pmix, or mpirun inside the allocation'
  refused "$apart" env SLURM_STEP_NUM_TASKS=4 SLURM_NTASKS=4 SLURM_PROCID=0 "${train[@]}"
  refused "${apart/4/2}" env PMI_SIZE=2 PMI_RANK=0 "${train[@]}"
  wants 2 env SLURM_STEP_NUM_TASKS=4 SLURM_NTASKS=4 SLURM_PROCID=3 "${train[@]}"
  [[ ! -s err ]] || fail "task 3 speaks too: $(cat err)"
fi
finish
