"""`qcrs-jax`: one subcommand a module. A module is imported for its arguments; JAX only when the command runs."""

import argparse
import os
import sys
import traceback
from collections.abc import Callable
from typing import NamedTuple

from qcrs_jax.errors import UserError
from qcrs_jax.printable import printable_lines
from qcrs_jax.version import version

from .commands import (
    agreement,
    attack,
    benchmark,
    certify,
    collapse,
    compare,
    convert,
    curve,
    demo,
    experiment,
    export,
    export_program,
    memory,
    plot,
    predict,
    prepare_tfds,
    quasiconcavity,
    rebound,
    report,
    sequential,
    simulate,
    table,
    train,
    verify,
    visualize,
    zoo,
)
from .commands.flags import Parser
from .run.stopped import Stopped

COMMANDS = {
    "train": train,
    "certify": certify,
    "predict": predict,
    "convert": convert,
    "export": export,
    "export-program": export_program,
    "zoo": zoo,
    "table": table,
    "compare": compare,
    "plot": plot,
    "report": report,
    "visualize": visualize,
    "curve": curve,
    "collapse": collapse,
    "quasiconcavity": quasiconcavity,
    "simulate": simulate,
    "sequential": sequential,
    "memory": memory,
    "rebound": rebound,
    "agreement": agreement,
    "attack": attack,
    "verify": verify,
    "experiment": experiment,
    "demo": demo,
    "prepare-tfds": prepare_tfds,
    "benchmark": benchmark,
}


class Invoked(NamedTuple):
    """The invocation of a command, for commands that run others.

    run: runs its parsed arguments.
    names: the flag that was typed for each setting.
    main: words -> exit status, for any command.
    arguments_of: (name of a command, its words) -> its parsed arguments.
    """

    run: Callable
    names: dict[str, str]
    main: Callable
    arguments_of: Callable


def parser_of(command: str) -> Parser:
    """The parser of one command."""
    return _completed(Parser(prog=f"qcrs-jax {command}", description=COMMANDS[command].__doc__), command)


def arguments_of(command: str, words: list[str]) -> argparse.Namespace:
    """The arguments of one command."""
    return parser_of(command).parse_args(words)


def _completed(parser, command):
    COMMANDS[command].add_arguments(parser)
    parser.set_defaults(invoked=Invoked(COMMANDS[command].run, parser.names, main, arguments_of), distributed=False)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs one command. Returns its exit status.

    0: success. 2: a mistake that the user can mend. 130: interrupted. 141: the output was closed by its reader.

    An error that the user cannot mend is raised; so is one about a file that the user did not name.

    A run over images may be stopped by SIGTERM, by Ctrl-C or by the end of another host. Then the process ends here,
    with 143, 130 or 75. One of several hosts that cannot continue also ends here, with 2, or with 1 after an unforeseen
    error.
    """
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) == "strict":  # file names need not be texts
            stream.reconfigure(errors="backslashreplace")
    words = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog="qcrs-jax",
        description="Randomized-smoothing certification in JAX: Cohen's RS, QCRS and DDRS.",
        epilog="`qcrs-jax COMMAND --help` describes a command; `qcrs-jax demo` needs no arguments.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"qcrs_jax {version('qcrs_jax')}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for name, module in COMMANDS.items():
        summary, *_ = module.__doc__.strip().split("\n", 1)
        _completed(subparsers.add_parser(name, help=summary, description=module.__doc__), name)
    args = parser.parse_args(words)
    try:
        args.invoked.run(args)
    except UserError as error:
        print(printable_lines(f"qcrs-jax: error: {error.named(args.invoked.names)}"), file=sys.stderr)
        if args.distributed:
            _exit(2)  # so the other hosts notice at once that this one is gone
        return 2
    except BrokenPipeError:  # the reader of the output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Stopped as stop:
        print(printable_lines("\n".join([f"\nqcrs-jax: {stop}", *getattr(stop, "__notes__", ())])), file=sys.stderr)
        _exit(stop.status)
    except Exception as error:
        from .run.full_card import no_room

        said = no_room(error)
        if said:
            print(f"qcrs-jax: error: {said}", file=sys.stderr)
        elif not args.distributed:
            raise
        else:
            traceback.print_exc()
        if args.distributed:
            _exit(2 if said else 1)
        return 2
    except KeyboardInterrupt:
        print(
            "qcrs-jax: interrupted; repeat the command, and a certification continues where it stopped",
            file=sys.stderr,
        )
        return 130
    return 0


def _exit(status):
    """Ends the process. An ordinary exit would first wait for the work of the devices or of the other hosts."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
