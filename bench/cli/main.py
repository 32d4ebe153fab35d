"""The command `bench`: its verbs, and the one place where errors become exit codes."""

from __future__ import annotations

import errno
import os
import sys
import traceback

import click

from bench.cli.click_commands import CONTEXT, add_verbs, examples
from bench.core.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_WRONG_USE, BenchError, WrongUse
from bench.core.open_files import raise_limit
from bench.core.version import __version__

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)  # These errors of the disk name no file.


@click.group(context_settings=CONTEXT, epilog=examples(
    "bench sweep --batch 1,8,32",
    "bench sweep --url 127.0.0.1:8000 --batch 1,8 --concurrency 1,4,16",
    "bench report reports/mine",
    "bench doctor",
))  # fmt: skip
@click.version_option(__version__, prog_name="bench")
def bench() -> None:
    """Measure models served on Triton: throughput and latency against batch, instances and load.

    Progress and messages go to stderr, results to stdout. Exit codes: 0 done, all valid; 1 a gate or SLO was
    missed; 2 wrong use; 3 measured, but inconclusive or some cell INVALID; 4 the target or a tool failed;
    130 interrupted, what was measured is saved.

    Shell completion: eval "$(_BENCH_COMPLETE=bash_source bench)" (or zsh_source, fish_source).
    """


add_verbs(bench)


def main() -> None:
    """Entry point: one place where errors become a message on stderr and an exit code."""
    raise_limit()  # a server that is started here needs a file for each connection, too
    try:
        bench.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_WRONG_USE)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:  # somebody closed our stdout, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0)
    except WrongUse as error:
        click.echo("\n".join(f"error: {mistake}" for mistake in error.mistakes), err=True)
        sys.exit(error.exit_code)
    except BenchError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except Exception as error:  # Python would end with 1, which says here that a gate was missed
        click.echo(_unforeseen(error), err=True)
        sys.exit(EXIT_FAILED)


def _unforeseen(error: Exception) -> str:
    """A file that cannot be read or written is the machine's; anything else is a mistake of ours."""
    if isinstance(error, OSError) and error.filename is not None:
        return (
            f"error: {error.filename}: {error.strerror}. See to the path, its permissions and the free space."
        )
    if isinstance(error, OSError) and error.errno in _DISK:
        places = "the run's folder, the folder for temporary files (TMPDIR), or the cache (XDG_CACHE_HOME)"
        return f"error: {error.strerror}: see to the free space of {places}."
    said = "".join(traceback.format_exception(error))
    return f"{said}error: this is a mistake in bench {__version__}; report it with the lines above."
