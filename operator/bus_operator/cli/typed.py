"""The command line that was typed, as one to paste that does the same in the operator's pod."""

import shlex
import sys
from collections.abc import Collection, Iterator

import click
from click.core import ParameterSource

from bus_operator.cluster_client import Typed

_WORK_THERE = ("doctor", "peers", "status", "top", "tail")
"""Commands that need nothing but the cluster and its databases."""

_LIVE = ("top", "tail")
"""Those that go on until Ctrl-C, of which a process in a pod learns by a terminal only."""

_CLUSTER = {"kubeconfig", "context"}
"""Options that say which cluster it is: kubectl has to be told, and in the pod it is that one."""

_WHERE = _CLUSTER | {"namespace", "everywhere", "database"}


def typed_in(namespace: str | None) -> Typed:
    """What was typed, with the namespace that is meant; None: all. Dots stand for what needs more than a pod has."""
    context = click.get_current_context()
    kubectl = ["kubectl", "exec", *_words(context, _CLUSTER)]
    name = context.command.name or ""
    if name not in _WORK_THERE:
        return Typed(kubectl=shlex.join(kubectl))
    if name in _LIVE and sys.stdout.isatty():
        kubectl.append("-it")
    within = ["-n", namespace] if namespace is not None else ["-A"]
    others = {parameter.name or "" for parameter in context.command.params} - _WHERE
    return Typed(shlex.join(["busctl", name, *_words(context, others), *within]), shlex.join(kubectl))


def _words(context: click.Context, wanted: Collection[str]) -> Iterator[str]:
    """Those of the wanted arguments and options that are on the command line, in the order of the help."""
    for parameter in context.command.params:
        name = parameter.name or ""
        if name not in wanted or context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        if not isinstance(parameter, click.Option):
            yield str(context.params[name])
            continue
        option = max(parameter.opts, key=len)
        if parameter.is_flag:
            yield option
            continue
        for value in context.params[name] if parameter.multiple else [context.params[name]]:
            yield from (option, str(value))
