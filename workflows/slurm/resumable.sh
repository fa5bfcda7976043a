# Sourced by train.sbatch and run.sbatch, which set `home` to this repository: runs a workflow script so that the job
# is requeued when its time is nearly up, and continues where it stopped. docs/CLUSTER.md explains it.

program= # the id of the running process
asked=   # what a signal asked for: `requeue` or `end`

say() {
    echo "$(date '+%F %T') job $SLURM_JOB_ID: $*"
}

# The user's own lines (`module load`, a virtual environment); without -u, which many of them do not bear.
set_up() {
    local file=${EMDISTILL_SETUP:-$home/workflows/slurm/setup.sh}
    if [ -f "$file" ]; then
        . "$file"
    elif [ -n "${EMDISTILL_SETUP:-}" ]; then
        say "EMDISTILL_SETUP names a file that is not there: $EMDISTILL_SETUP"
        exit 2
    fi
    export PYTHONUNBUFFERED=1 PYTHONPATH="$home${PYTHONPATH:+:$PYTHONPATH}"
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$SLURM_CPUS_ON_NODE}" # or libraries take all that the node has
}

python() {
    if [ -n "${EMDISTILL_PYTHON:-}" ]; then
        echo "$EMDISTILL_PYTHON"
    elif [ -x "$home/.venv/bin/python" ]; then
        echo "$home/.venv/bin/python"
    else
        echo python3
    fi
}

# Ask the program to end. Training writes a checkpoint first; of blocks, those in progress are lost.
stop() {
    asked=$1
    say "$2"
    [ -z "$program" ] || kill -TERM "$program" 2>/dev/null
}

# The status of the program. A signal interrupts `wait`, which then tells of the signal.
wait_for_program() {
    wait "$program"
    while kill -0 "$program" 2>/dev/null; do wait "$program"; done
    wait "$program"
}

requeue() {
    local most=${EMDISTILL_REQUEUES:-100} attempt
    if [ "${SLURM_RESTART_COUNT:-0}" -ge "$most" ]; then
        say "not requeued, for EMDISTILL_REQUEUES is $most; submit it again to continue"
        return
    fi
    say "requeued, to continue when it is its turn"
    for attempt in 1 2 3; do # the controller may be restarting
        scontrol requeue "$SLURM_JOB_ID" && return
        sleep 5
    done
    say "could not be requeued; submit it again to continue"
}

# run_resumable SCRIPT ARGUMENTS...: ends the job with the status of the script, which is one of workflows/.
run_resumable() {
    local script=$home/workflows/${1:-} status
    if [ ! -f "$script" ]; then
        say "'${1:-}' is no script of $home/workflows"
        exit 2
    fi
    trap 'stop requeue "the time limit is near: stopping"' USR1
    trap 'stop end "told to end: stopping"' TERM
    set_up
    say "start $((${SLURM_RESTART_COUNT:-0} + 1)) on $(hostname): $*"
    "$(python)" "$script" "${@:2}" &
    program=$!
    [ -z "$asked" ] || kill -TERM "$program" # asked before it started
    wait_for_program
    status=$?
    say "$1 ended with status $status"
    # 130: stopped with its work saved; 143: stopped where there was nothing to save. All else is done or fails again.
    case $asked,$status in requeue,130 | requeue,143) requeue ;; esac
    exit "$status"
}
