"""SLURM by its commands: submit, ask, cancel; what a job asks for; the address at which its workers find the driver."""

from .address import address_for_workers
from .commands import ControllerAway, JobState, Rejected, cancel, job_states, jobs_named, submit, test_submission
from .jobs import end_of_this_job, job_in_words, job_options, job_script
from .watch import JobWatch

__all__ = [
    "ControllerAway",
    "JobState",
    "JobWatch",
    "Rejected",
    "address_for_workers",
    "cancel",
    "end_of_this_job",
    "job_in_words",
    "job_options",
    "job_script",
    "job_states",
    "jobs_named",
    "submit",
    "test_submission",
]
