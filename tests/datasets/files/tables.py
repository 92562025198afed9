"""Tables of series as people write them, and what is read from them."""

import numpy as np
import torch

from seqmem import datasets
from seqmem.data import SPLITS

WHOLE = {"validation_fraction": 0.2, "test_fraction": 0.2, "standardize": False}


NAMES = [f"s{k:02}" for k in range(20)]


def loaded(path, **arguments):
    return datasets.load({"name": "files", "path": str(path), **arguments})


def line(data, name):
    """The text of a line of the table of what was understood."""
    [found] = [line.strip() for line in data.summary.splitlines()[1:] if line.strip().startswith(f"{name}  ")]
    return found.removeprefix(name).strip()


def everything(data):
    """Inputs of all series without padding, with their targets, in the order of the values of their first steps."""
    found = []
    for split in SPLITS:
        batch = data.batch(split, torch.arange(data.sizes[split]))
        lengths = [batch.inputs.shape[1]] * len(batch) if batch.lengths is None else batch.lengths.tolist()
        for inputs, target, length in zip(batch.inputs, batch.targets, lengths, strict=True):
            assert (inputs[length:] == 0).all()
            found.append((inputs[:length].tolist(), target.tolist()))
    return sorted(found)


def classes(data):
    batches = [data.batch(split, torch.arange(size)) for split, size in data.sizes.items()]
    firsts = torch.cat([batch.inputs[:, 0, 0] for batch in batches])
    return torch.cat([batch.targets for batch in batches])[firsts.argsort()].tolist()


def long(rows=10, separator=",", header="id,time,x,y,label", label=lambda k: "ab"[k % 2], number=str, ending="\n"):
    """A long table of series of two and three steps."""
    lines = [header.replace(",", separator)]
    for k in range(rows):
        for t in range(2 + k % 2):
            lines.append(separator.join([f"s{k}", str(t), number(k + t / 4), number(-k - 0.5), label(k)]))
    return ending.join(lines) + ending


EXPECTED = [([[k + t / 4, -k - 0.5] for t in range(2 + k % 2)], k % 2) for k in range(10)]


def comma(value):
    return str(value).replace(".", ",")


def shuffled(text):
    head, *lines = text.splitlines()
    return "\n".join([head, *np.random.default_rng(0).permutation(lines)]) + "\n"


TABLES = {
    "plain": long(),
    "CRLF": long(ending="\r\n"),
    "CR": long(ending="\r"),
    "byte order mark": "\ufeff" + long(),
    "semicolons": long(separator=";"),
    "decimal commas": long(separator=";", number=comma),
    "decimal commas after tabs": long(separator="\t", number=comma),
    "quoted decimal commas": long(number=lambda value: f'"{comma(value)}"'),
    "tabs": long(separator="\t"),
    "bars": long(separator="|"),
    "blanks": long(separator="  "),
    "blanks after commas": long(separator=", "),
    "blanks around cells": long(separator=" , "),
    "no end of the last line": long().rstrip(),
    "blank lines": long().replace("\n", "\n\n"),
    "lines of separators": long().replace("\n", "\n,,,,\n"),
    "trailing separators": long(ending=",\n"),
    "trailing separators but in the header": long(ending=",\n").replace(",\n", "\n", 1),
    "trailing semicolons": long(separator=";", ending=";\r\n"),
    "quoted fields": '"id","time","x","y","label"\n'
    + "".join(",".join(f'"{cell}"' for cell in row.split(",")) + "\n" for row in long().splitlines()[1:]),
    "unsorted": shuffled(long()),
    "capitals": long(header="ID,Time,X,Y,Label"),
    "other names": long(header="series_id,timestamp,x,y,class"),
    "numbers of rows as pandas writes them": "\n".join(
        f"{'' if k == 0 else k - 1},{row}" for k, row in enumerate(long().splitlines())
    ),
    "dates": long()
    .replace(",0,", ",2024-01-31T23:59:59.5,")
    .replace(",1,", ",2024-02-01,")
    .replace(",2,", ",2024-03-01 10:00,"),
    "dates with an offset": long()
    .replace(",0,", ",2024-01-31T23:59:59.5Z,")
    .replace(",1,", ",2024-02-01T02:00+02,")
    .replace(",2,", ",2024-03-01 10:00-0530,"),
    "labels on one row of a series": "\n".join(
        row if row.split(",")[1] in ("time", "0") else row.rsplit(",", 1)[0] + "," for row in long().splitlines()
    ),
}


WIDE = "".join(f"{k},{k + 0.5},{k + 1}{',2' if k % 2 else ''}\n" for k in range(10))


EXPECTED_WIDE = sorted(([[k], [k + 0.5], [k + 1.0], *([[2.0]] if k % 2 else [])], k % 2) for k in range(10))


WIDE_TABLES = {
    "header": "label,t0,t1,t2,t3\n" + "".join(f"{'ab'[k % 2]},{row}\n" for k, row in enumerate(WIDE.splitlines())),
    "label last": "t0,t1,t2,t3,label\n"
    + "".join(f"{row}{'' if k % 2 else ','},{'ab'[k % 2]}\n" for k, row in enumerate(WIDE.splitlines())),
    "ids": "id,label,t0,t1,t2,t3\n" + "".join(f"{k + 5},{'ab'[k % 2]},{row}\n" for k, row in enumerate(WIDE.splitlines())),
    "numbered steps": "label,0,1,2,3\n" + "".join(f"{'ab'[k % 2]},{row}\n" for k, row in enumerate(WIDE.splitlines())),
    "NaN at the end": "label,t0,t1,t2,t3\n"
    + "".join(f"{'ab'[k % 2]},{row}{'' if k % 2 else ',NaN'}\n" for k, row in enumerate(WIDE.splitlines())),
}
