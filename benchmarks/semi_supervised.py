"""What raw without labels is worth: students that see some of it beside few labels, against those that see labels only.

Cells as in `distillation_gain.py`, with which it shares folders: the cells of data set `fib25` are the same. Of
`fib25_50`, `fib25_25`, `fib25_10` the teacher and all students know the labels of the first half, quarter, tenth of the
training sections; validation is that of `fib25`. Every batch has as many samples in all variants; in those called
unlabelled, half of them are raw of another place of the same tissue.

    python benchmarks/semi_supervised.py --out runs/gain --dataset fib25_25 --seeds 3
    python benchmarks/semi_supervised.py --out runs/gain --table

Variants: `teacher`; `alone`, the student on the labels; `recipe`, the config as it is (graph relations), and
`recipe_unlabelled`; `flow`, graph flow with the weights of `configs/fib25_graph_flow.json`, and `flow_unlabelled`;
`flow_logits_unlabelled` with logits, too, as that config is, and `flow_full_unlabelled` with a critic besides.

The last line of the output is one JSON object: per data set the share of the gap to the teacher that each variant
closes.
"""

from __future__ import annotations

import json

from gain.cells import Plan, finished_results, planned_cells
from gain.command import cells_parser
from gain.datasets import SEMI_SUPERVISED_DATASETS
from gain.running import finish_cells
from gain.table import as_markdown, ratios
from gain.variants import SEMI_SUPERVISED


def main() -> None:
    """Finish what is missing of the chosen cells, then print the table of all finished ones."""
    options = cells_parser(str(__doc__), list(SEMI_SUPERVISED_DATASETS), SEMI_SUPERVISED).parse_args()
    plan = Plan(options.out / "quick" if options.quick else options.out, tuple(options.set), options.quick)
    real = [name for name in SEMI_SUPERVISED_DATASETS if name.startswith("fib25")]
    datasets = ["phantom_50"] if options.quick else options.dataset or real
    if not options.table:
        variants = options.variant or list(SEMI_SUPERVISED)
        cells = planned_cells(plan, datasets, variants, range(options.first_seed, options.first_seed + options.seeds))
        finish_cells(cells, options.jobs, options.threads)
    finished = [
        result
        for result in finished_results(plan.out)
        if result["dataset"] in datasets and result["variant"] in SEMI_SUPERVISED
    ]
    print(as_markdown(plan.out, finished))
    closures = {name: facts["gap_closure"] for name, facts in ratios(plan.out, finished).items()}
    print(json.dumps({"quick": options.quick, "gap_closure": closures}))


if __name__ == "__main__":
    main()
