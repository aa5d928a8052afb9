#!/bin/sh
# SPDX-License-Identifier: MIT
# The units of pieces.sh as an array of Slurm, a line in the directory `lines` for each that is
# done: sbatch slurm.sh, in this directory.
#SBATCH --job-name=pieces
#SBATCH --array=1-54
#SBATCH --cpus-per-task=1
#SBATCH --mem=512M
#SBATCH --time=5
#SBATCH --output=lines/%a.log
unit=$SLURM_ARRAY_TASK_ID
mkdir -p lines
sh pieces.sh --unit "$unit" >"lines/$unit.new" && mv "lines/$unit.new" "lines/$unit"
