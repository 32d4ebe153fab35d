"""`--help` of verbs with many flags, under headings in the order in which a person needs them."""

from __future__ import annotations

from collections.abc import Iterator

import click

_REST = "Run"
_SECTIONS: dict[str, str] = {
    "Configurations of the server, each a further axis": "batch instances max_batch max_queue_delay "
    "preferred_batch precision compile wire output parameter replicas",
    "Load": "concurrency rate arrival scenario protocol engine shared_memory via image timeout",
    "What has to hold, and against what": "slo against variant fail_if anyway budget",
    "A server that runs already": "url grpc_url metrics_url header",
    "A server started here": "model vit tritonserver repository",
    "A service on a cluster": "mlservice deploy namespace context platform triton_image gpu queue sets set "
    "keep deploy_timeout",
    "Measuring": "duration warmup repeats quick longest_probe longest_trial check seed ceiling",
    "Who makes the load": "processes workers locust_master in_cluster load_image load_account perf_analyzer",
}
_SECTION_OF = {name: title for title, names in _SECTIONS.items() for name in names.split()}


class Sectioned(click.Command):
    """A command whose options are listed under headings; one that no heading names comes last."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, rows in self._sections(ctx):
            with formatter.section(title):
                formatter.write_dl(rows)

    def _sections(self, ctx: click.Context) -> Iterator[tuple[str, list[tuple[str, str]]]]:
        records = [(option.name or "", option.get_help_record(ctx)) for option in self.get_params(ctx)]
        for title in (*_SECTIONS, _REST):
            rows = [row for name, row in records if row and _SECTION_OF.get(name, _REST) == title]
            if rows:
                yield title, rows
