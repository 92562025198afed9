"""Writers of small files in the formats of the real data sets."""

import io
import struct
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np


def idx_bytes(array: np.ndarray) -> bytes:
    """The content of an idx file of unsigned bytes."""
    return struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_ts(
    data_dir: Path, problem: str, part: str, cases: Iterable[tuple[Sequence[Sequence[float]], str]], **tags: str
) -> Path:
    """Write a file of the UEA archive; a case is its channels, of any lengths, and its label."""
    cases = list(cases)
    labels = " ".join(dict.fromkeys(label for _, label in cases))
    header = {"problemName": problem, "timeStamps": "false", "univariate": "false", "classLabel": f"true {labels}"} | tags
    lines = [f"@{tag} {value}" for tag, value in header.items()]
    lines.append("@data")
    for channels, label in cases:
        texts = [",".join("?" if np.isnan(value) else repr(float(value)) for value in channel) for channel in channels]
        lines.append(":".join([*texts, label]))
    path = data_dir / problem / f"{problem}_{part}.ts"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def write_archive(data_dir: Path, members: Mapping[str, bytes]) -> Path:
    """Write ``aclImdb_v1.tar.gz`` with these members."""
    data_dir.mkdir(parents=True, exist_ok=True)
    path = data_dir / "aclImdb_v1.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
