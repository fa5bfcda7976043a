"""Where blocks are computed: processes of one machine, or batch jobs of a cluster."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import NonNegative, Positive, Section, TypeName

Seconds = Annotated[float, Field(gt=0)]
Text = Annotated[str, Field(min_length=1)]
JobTime = Annotated[
    str,
    Field(pattern=r"^(\d+|\d+:\d\d|\d+:\d\d:\d\d|\d+-\d+|\d+-\d+:\d\d|\d+-\d+:\d\d:\d\d)$"),
    TypeName('text as SLURM reads times: minutes, "hours:minutes:seconds" or "days-hours"'),
]
JobMemory = Annotated[
    str,
    Field(pattern=r"^\d+[KMGT]?$"),
    TypeName('text as SLURM reads memory: a whole number and K, M, G or T, for example "16G"'),
]
ExecutorName = Literal["serial", "local", "slurm"]
BlockStage = Literal[
    "import",
    "predict",
    "fragments",
    "rag",
    "fragment_classes",
    "linkage",
    "merge_scores",
    "agglomerate",
    "segment",
    "raw_pyramid",
    "fragments_pyramid",
    "segmentation_pyramid",
    "certainty",
    "export",
    "mesh_pieces",
    "mesh_shards",
    "skeleton_pieces",
    "skeleton_shards",
    "chunked_graph",
]


class JobConfig(Section):
    """What one worker's batch job asks of SLURM. What is not set is not asked for: the cluster's own defaults hold."""

    partition: Text | None = None
    """`--partition`."""
    account: Text | None = None
    """`--account`."""
    qos: Text | None = None
    """`--qos`."""
    time: JobTime | None = None
    """`--time`, the limit of one job. A worker that nears it ends by itself, and a new job takes its place: short jobs
    start sooner and do no harm, as long as a block fits in many times."""
    memory: JobMemory | None = None
    """`--mem`. `--pilot` says what a worker needs, `--dry-run` what the jobs of a stage ask for."""
    cpus: Positive | None = None
    """`--cpus-per-task`. Default: `cluster.threads_per_worker`."""
    gpus: Positive | Text | None = None
    """`--gpus`: a number, or a type and a number as in `"a100:1"`."""
    constraint: Text | None = None
    """`--constraint`."""
    extra: tuple[Text, ...] | None = None
    """Further arguments of `sbatch`, for example `["--exclude=node07", "--nice=100"]`."""
    setup: tuple[Text, ...] | None = None
    """Lines of shell that each job runs first, for example `["module load cuda/12.4"]`. One that fails ends the job."""


class StageJobConfig(JobConfig):
    """What is different for one stage: its values replace those of `cluster.slurm`."""

    workers: Positive | None = None
    """Most workers of this stage at a time, if less than `cluster.workers`: as many as there are GPUs, for example."""


class SlurmConfig(JobConfig):
    """Workers as SLURM jobs, one job per worker (`executor`: `slurm`). docs/CLUSTER.md explains."""

    stages: dict[BlockStage, StageJobConfig] = {}  # noqa: RUF012  pydantic copies defaults
    """What single stages ask for instead, for example `{"predict": {"partition": "gpu", "gpus": 1, "workers": 4}}`. The
    stages are `import`, `predict`, `fragments`, `rag`, `fragment_classes`, `linkage`, `merge_scores`, `agglomerate`,
    `segment`, `certainty`, `raw_pyramid`, `fragments_pyramid`, `segmentation_pyramid`; of exports `export`,
    `mesh_pieces`, `mesh_shards`, `skeleton_pieces`, `skeleton_shards`, `chunked_graph`."""
    address: Text | None = None
    """How workers reach the driver: an address or name of its machine, one of its network interfaces (`"ib0"`) or a
    network that it is in (`"10.20.0.0/16"`). Default: the address from which the machine reaches the compute nodes."""
    grace: NonNegative = 60
    """Seconds before its time limit at which a job is told to end (`--signal`). The block under way goes back."""
    resubmissions: NonNegative = 20
    """Jobs of a worker that may end in a row by the cluster's doing (time limit, preemption, node failure) without
    having finished a block; then the worker is given up."""
    patience: Seconds = 3600.0
    """Seconds that the driver goes on without an answer from SLURM's controller before it gives a worker up."""
    poll: Seconds = 10.0
    """Seconds between two questions to the controller, one for all jobs together."""

    def job(self, stage: str) -> JobConfig:
        """What a job of a stage asks for."""
        asked, own = set(JobConfig.model_fields), self.stage(stage)
        changes = {} if own is None else own.model_dump(include=asked, exclude_none=True)
        return JobConfig(**{**self.model_dump(include=asked), **changes})

    def stage(self, name: str) -> StageJobConfig | None:
        """What a stage has of its own."""
        return next((own for stage, own in self.stages.items() if stage == name), None)


class ClusterConfig(Section):
    """Where blocks are computed."""

    executor: ExecutorName = "local"
    """`serial`: in this process, for debugging; `local`: worker processes on this machine; `slurm`: batch jobs."""
    workers: Positive = 2
    """Worker processes or jobs; stages that run at the same time may have one more each, which mostly waits."""
    threads_per_worker: Positive = 1
    """Threads that each worker's numerical libraries may use."""
    block_timeout: Seconds = 3600.0
    """Seconds after which a block counts as hung and its worker is replaced."""
    retries: NonNegative = 2
    """Times that another worker tries a block again whose worker died or hung, or that failed with an error that may
    pass. Errors of the code or the data are not tried again: they would only repeat themselves. A block that a job
    gives back because of its time limit, or that a node took with it, has not been tried."""
    worker_restarts: NonNegative = 10
    """Times that dead workers are replaced before a stage gives up. Jobs that the cluster ended do not count."""
    passing_retries: NonNegative = 8
    """Times that a worker itself tries a block again after trouble that passes: a lost connection, a database that
    restarts, a file server that does not answer. With these defaults it waits for about three minutes in all."""
    passing_pause: Seconds = 1.0
    """Seconds before the first of these attempts; each further one waits twice as long, give or take a half."""
    longest_pause: Seconds = 60.0
    """The longest of these pauses in seconds."""
    identical_failures: Positive = 5
    """When so many blocks have failed with the same error, and none has succeeded, the stage ends with that error."""
    slurm: SlurmConfig = SlurmConfig()
    """Batch jobs."""

    def workers_of(self, stage: str) -> int:
        """Most workers of a stage at a time."""
        own = self.slurm.stage(stage) if self.executor == "slurm" else None
        most = own.workers if own is not None else None
        return self.workers if most is None else min(self.workers, most)
