"""How much of the gap between a student and its teacher distillation closes, term by term.

Each (data set, variant, seed) is one cell: a run directory of its own below `--out`, trained with the same data,
iterations and schedule as the other cells of its data set, and scored on the validation region, which no training sees.
A finished cell is kept, an unfinished one continues, so the table can grow over days, and on several machines: copy
their cells together. Cells that were made with other settings are refused, never mixed.

    python benchmarks/distillation_gain.py --out runs/gain --dataset fib25
    python benchmarks/distillation_gain.py --out runs/gain --dataset fib25 --variant alone --variant recipe --seeds 3
    python benchmarks/distillation_gain.py --out runs/gain --table

Variants: `teacher`; `alone`, the student trained on labels as the teacher is; `alone_near`, where the config chooses
the offsets that labels teach the student, the same on these, to tell what the teacher teaches from this emphasis;
then the terms of graph relation distillation added in turn: `node`, `edge`, `affinity`, `inter_edge`, and `full`, which
is all of them with inter-image affinity; and `recipe`, the config as it is. One teacher serves all students.
By name only: `touching`, the terms of `affinity` with edges between touching instances, directions of nodes, and no
slivers; `recipe_embedding`, the config from that teacher with embeddings, the control of both; `cross_section`, the
config and affinities across sections; `learning_teacher`, the config and a teacher that goes on learning; `described`,
the config and local shape descriptors for the student (`--set 'targets.descriptors={}'` with an `--out` of its own
gives them to the teacher, too).

The last line of the output is one JSON object: per data set the share of the gap that each variant closes, and the
ratios of parameters and of prediction time, student over teacher.
"""

from __future__ import annotations

import argparse
import json

from gain.cells import Plan, finished_results, planned_cells
from gain.command import cells_parser
from gain.datasets import DATASETS
from gain.running import finish_cells
from gain.table import as_markdown, ratios
from gain.timing import finish_timings
from gain.variants import ABLATION, VARIANTS


def main() -> None:
    """Finish what is missing of the chosen cells, then print the table of all finished ones."""
    options = parse()
    plan = Plan(options.out / "quick" if options.quick else options.out, tuple(options.set), options.quick)
    datasets = ["phantom"] if options.quick else options.dataset or ["fib25", "nuclei2d", "vnc"]
    if not options.table:
        variants = options.variant or (["recipe"] if options.quick else list(ABLATION))
        cells = planned_cells(plan, datasets, variants, range(options.first_seed, options.first_seed + options.seeds))
        finish_cells(cells, options.jobs, options.threads)
        finish_timings(plan, datasets, 1 if options.quick else options.repeats)
    finished = finished_results(plan.out)
    print(as_markdown(plan.out, finished))
    print(json.dumps({"quick": options.quick, **ratios(plan.out, finished)}))


def parse() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = cells_parser(str(__doc__), sorted(DATASETS), VARIANTS)
    parser.add_argument("--repeats", type=int, default=3, help="predictions per network for the ratio of times")
    return parser.parse_args()


if __name__ == "__main__":
    main()
