"""`microsfl verify` and `microsfl gc`: which stores are meant, and what is printed about them."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
from rich.filesize import decimal

from ..errors import InvalidSetting, RunNotFound, did_you_mean
from ..spec import check_id
from ..store.objects import ObjectStore, open_store
from ..store.options import below
from ..store.s3 import area_environment
from ..sync.inventory import take_stock
from ..sync.retention import Plan, carry_out, plan
from ..sync.verify import Finding, Report, verify
from .spec_file import read_spec

AREAS = ("body", "client")
ALIKE = 3  # notes of one meaning that are printed before the rest of them is only counted


def verify_stores(targets: Sequence[str], run: str | None, *, as_json: bool) -> int:
    """Check what `targets` have; prints the findings and gives the exit code, 1 when there is an error."""
    stores = dict(_opened(targets))
    _expect_run(stores, run)
    report = verify(stores, run)
    if as_json:
        click.echo(json.dumps(_report(stores, report), indent=2))
    else:
        for line in _lines(report):
            click.echo(line)
    return 1 if report.errors else 0


def collect_garbage(
    targets: Sequence[str], run: str | None, keep: int, *, dry_run: bool, as_json: bool = False
) -> None:
    """Remove what the runs of `targets` do not need any more; nothing with `dry_run`. Prints what it is."""
    stores = dict(_opened(targets))
    _expect_run(stores, run)
    # All are planned before anything goes: what is wrong with one of them is known first.
    plans = [
        (store, plan(store, stock, area, keep))
        for store in stores.values()
        for stock in take_stock(store, run)
        for area in stock.areas
    ]
    for store, one in plans:
        if not dry_run:
            carry_out(store, one)
        if not as_json:
            click.echo(f"{one.run} ({one.area}): {_amount([one])}")
    if as_json:
        click.echo(json.dumps(_removed(plans, dry_run=dry_run), indent=2))
        return
    everything = _amount([one for _, one in plans])
    click.echo(f"Would remove {everything}; nothing was removed." if dry_run else f"Removed {everything}.")


def _removed(plans: Sequence[tuple[ObjectStore, Plan]], *, dry_run: bool) -> dict[str, object]:
    areas = [
        {"store": store.url, "run": one.run, "area": one.area, "removals": [vars(gone) for gone in one.removals]}
        for store, one in plans
    ]
    everything = [gone for _, one in plans for gone in one.removals]
    return {
        "dry_run": dry_run,
        "files": len(everything),
        "size_bytes": sum(gone.size_bytes for gone in everything),
        "areas": areas,
    }


def store_urls(target: str) -> list[tuple[str, str | None]]:
    """(URL, area) of the stores that `target` means: a run folder's two areas; or a store's folder or URL, of which it
    is not known what areas it has (None).

    Raises:
        InvalidSetting: when there is no such folder, or it is neither a store nor a run folder with one.
    """
    if "://" in target:
        parts = urlsplit(target)
        if parts.scheme == "memory":
            raise InvalidSetting(f"'{target}' lives within one process; name a run folder, file:///… or s3://….")
        if parts.scheme == "file" and not Path(unquote(parts.path)).is_dir():
            raise InvalidSetting(f"There is no folder {unquote(parts.path)}.")
        return [(target, None)]
    folder = Path(target)
    if not folder.is_dir():
        raise InvalidSetting(f"There is no folder {target}.")
    urls = _urls_of_run_folder(folder.resolve())
    if not urls and any((folder / below / "runs").is_dir() for below in (".", *AREAS)):
        urls = [(folder.resolve().as_uri(), None)]
    if not urls and (folder / "run.toml").is_file():
        raise InvalidSetting(
            f"{target} is the folder of a run that has no store: it was simulated, or its strategy needs no server."
        )
    if not urls:
        raise InvalidSetting(f"{target} is neither a run folder (with run.toml or store/) nor a store (with runs/).")
    return urls


def _urls_of_run_folder(folder: Path) -> list[tuple[str, str | None]]:
    """Its own store's areas that exist, and those that its run.toml puts elsewhere."""
    toml = folder / "run.toml"
    elsewhere = read_spec(toml).store.model_dump() if toml.is_file() else {}
    named: list[tuple[str, str | None]] = [
        (str(elsewhere[area]), area) for area in AREAS if elsewhere.get(area, "auto") != "auto"
    ]
    own = [((folder / "store" / area).as_uri(), area) for area in AREAS if (folder / "store" / area).is_dir()]
    return [*named, *own]


def _opened(targets: Iterable[str]) -> Iterator[tuple[str, ObjectStore]]:
    """(URL, store) of each; a store that does not hold any run is none of microsfl's.

    Raises:
        InvalidSetting: for a target that is no store.
    """
    for target in targets:
        stores = [store for url, area in store_urls(target) for store in _with_runs(url, area)]
        if not stores:
            raise InvalidSetting(f"{target} has no run in it: it is not a store of microsfl's, or an empty one.")
        yield from ((store.url, store) for store in stores)


def _with_runs(url: str, area: str | None) -> Iterator[ObjectStore]:
    """The store at `url` if it has runs, else those of its folders body/ and client/ that do.

    Each area is opened with its own credentials, where the environment has some.
    """
    store = open_store(url, None if area is None else area_environment(area, os.environ))
    if any(store.list("runs")):
        yield store
        return
    for one in AREAS:
        if any(store.list(f"{one}/runs")):
            yield open_store(below(url, one), area_environment(one, os.environ))


def _expect_run(stores: Mapping[str, ObjectStore], run: str | None) -> None:
    if run is None or any(take_stock(store, check_id(run, "run")) for store in stores.values()):
        return
    there = {stock.run for store in stores.values() for stock in take_stock(store)}
    raise RunNotFound(f"There is no run '{run}' in {', '.join(stores)}.{did_you_mean(run, there)}")


def _report(stores: Mapping[str, ObjectStore], report: Report) -> dict[str, object]:
    return {
        "stores": list(stores),
        "runs": report.runs,
        "files": report.files,
        "errors": report.errors,
        "findings": [{"store": store, **vars(finding)} for store, finding in report.findings],
    }


def _lines(report: Report) -> Iterator[str]:
    """Every error, and of the notes that say the same the first few."""
    for store, findings in groupby(sorted(report.findings, key=_order), key=lambda pair: pair[0]):
        yield store
        for (severity, meaning), alike in groupby(findings, key=lambda pair: (pair[1].severity, pair[1].meaning)):
            same = [finding for _, finding in alike]
            shown = same if severity == "error" or len(same) <= ALIKE + 1 else same[:ALIKE]
            for finding in shown:
                yield from _text(finding)
            if len(shown) < len(same):
                yield f"  … and {len(same) - len(shown)} more notes like that; --json lists them"
            yield f"         {meaning}"
    notes = len(report.findings) - report.errors
    found = f"{report.errors or 'no'} {_plural('error', report.errors)}, {notes} {_plural('note', notes)}"
    runs = f"{len(report.runs)} {_plural('run', len(report.runs))}"
    yield f"{runs}, {report.files:,} {_plural('file', report.files)}: {found}"


def _order(pair: tuple[str, Finding]) -> tuple[str, str, str, str]:
    store, finding = pair
    return store, finding.severity, finding.meaning, finding.file


def _text(finding: Finding) -> Iterator[str]:
    yield f"  {finding.severity:<6} {finding.file}"
    yield f"         expected {finding.expected}; found {finding.found}"


def _amount(plans: Sequence[Plan]) -> str:
    """Like "12 files, 3.1 MB (8 contribution, 4 weights)"."""
    removals = [removal for one in plans for removal in one.removals]
    kinds = Counter(removal.what for removal in removals)
    size = decimal(sum(removal.size_bytes for removal in removals))
    what = f" ({', '.join(f'{kind}: {count:,}' for kind, count in sorted(kinds.items()))})" if kinds else ""
    return f"{len(removals):,} {_plural('file', len(removals))}, {size}{what}"


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"
