"""The processor's name in a trial's record."""

import platform

import pytest

from seqmem.io import provenance

VIRTUAL = "cpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\n"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (f"processor\t: 0\n{VIRTUAL}\nprocessor\t: 1\n{VIRTUAL.replace('26', '99')}", "AMD EPYC, family 26 model 2"),
        ("cpu family\t: 6\nmodel\t\t: 143\nmodel name\t: Xeon: Platinum 8481C\n", "Xeon: Platinum 8481C"),
        ("model name\t: Cortex\n", "Cortex"),
        ("processor\t: 0\n", platform.processor()),
    ],
    ids=["virtual", "numbered", "no family", "no name"],
)
def test_a_name_without_a_number_gets_the_family(tmp_path, text, name):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(text)
    assert provenance._processor(tmp_path) == name


def test_other_systems_say_it_themselves(tmp_path):
    assert provenance._processor(tmp_path) == platform.processor()
