"""Random configurations and random command lines: each works or is refused in one line.

Every case is drawn from its number alone, so that one that fails can be drawn again.
"""

import inspect
import json
import types
import warnings
from collections import Counter
from functools import cache
from random import Random
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

import pytest
import torch
from omegaconf import OmegaConf

from seqmem import cells, datasets, models
from seqmem.cli import commandline, messages, overrides, run, sweeps
from seqmem.errors import DataWarning, UserError
from seqmem.models.base import _registry as networks
from seqmem.tasks import task_for
from seqmem.training import SequenceModule, TrainConfig, check_fit
from seqmem.training.config import model_arguments
from seqmem.training.loop.quiet import quiet_lightning
from tests import program
from tests.cli.choices import choices
from tests.datasets.conftest import idx_bytes, write_archive, write_ts

ODD = [0, -1, 0.0, -1.0, None, "x", [], 10**30, True, 0.5, ""]
SMALL = {
    "*": {"length": 24, "frequency": 5, "max_length": 30, "vocabulary_size": 40, "size": 10},
    "reber": {"length": 30, "shortest": 12},
    "uea": {"problem": "CharacterTrajectories"},
}
WORDS = ["a", "good", "bad", "film", "with", "so", "many", "words"]
LEFT_ALONE = ("name", "data_dir", "path", "problem", "num_workers", "network", "cell", "preset", "presets")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Tiny files of every data set that has files."""
    folder, random = tmp_path_factory.mktemp("data"), Random(0)

    def numbers(*shape):
        return torch.rand(shape, generator=torch.Generator().manual_seed(random.randrange(2**31))).numpy()

    (folder / "MNIST" / "raw").mkdir(parents=True)
    for part, count in {"train": 23, "t10k": 9}.items():
        (folder / "MNIST" / "raw" / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(numbers(count, 28, 28) * 255))
        (folder / "MNIST" / "raw" / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(numbers(count) * 10))
    for part in ("TRAIN", "TEST"):
        write_ts(folder, "CharacterTrajectories", part, [(numbers(3, random.randint(4, 11)), f"{k % 3}") for k in range(23)])
    (folder / "text8").mkdir()
    (folder / "text8" / "text8").write_text("".join(random.choices("abcdefghijklmnopqrstuvwxyz ", k=4000)))
    reviews = {
        f"aclImdb/{part}/{mark}/{k}_{k % 5 + 1}.txt": " ".join(random.choices(WORDS, k=9))
        for part in ("train", "test")
        for mark in ("pos", "neg")
        for k in range(9)
    }
    write_archive(folder, {path: text.encode() for path, text in reviews.items()})
    return folder


@pytest.fixture
def offline(monkeypatch, data_dir):
    """Nothing is downloaded, and a sweep's plan is forgotten."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("SEQMEM_DATA", str(data_dir))
    monkeypatch.setenv("SEQMEM_SWEEP", "sweep")
    monkeypatch.setattr(sweeps, "current", sweeps._Current())


@cache
def composed(group: str, choice: str) -> dict[str, Any]:
    """A group's section as its file and its tiny preset have it."""
    section = OmegaConf.load(overrides.CONFIGS / group / f"{choice}.yaml")
    tiny = section.pop("presets").tiny if group == "model" else {}
    return OmegaConf.to_container(OmegaConf.merge(section, tiny))


def hints(owner: Any) -> dict[str, Any]:
    """The type of each argument of a constructor."""
    if is_typeddict(owner):
        return get_type_hints(owner, include_extras=True)
    function = owner.__init__ if inspect.isclass(owner) else owner
    return get_type_hints(inspect.unwrap(function), include_extras=True)


def drawn(random: Random, hint: Any, now: Any) -> Any:
    """A small value of a type, seldom one of a different type."""
    if random.random() < 0.05:
        return random.choice(ODD)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return drawn(random, arguments[0], now)
    if origin in (Union, types.UnionType):
        return drawn(random, random.choice(arguments), now)
    if origin is Literal:
        return random.choice(arguments)
    if origin in (list, tuple) and arguments:
        return [drawn(random, arguments[0], None) for _ in range(random.randrange(3))]
    if is_typeddict(hint) and isinstance(now, dict):
        kinds = hints(hint)
        return {key: drawn(random, kinds[key], value) if random.random() < 0.3 else value for key, value in now.items()}
    if hint is type(None):
        return None
    plain = {bool: [True, False], int: [1, 2, 3, 5, 8], float: [0.0, 1e-3, 0.1, 0.5, 0.9, 1.0, 2.0]}
    return random.choice(plain[hint]) if hint in plain else now


def changes(random: Random, prefix: str, owner: Any, section: dict[str, Any], most: int) -> dict[str, Any]:
    """New values of some keys of a section."""
    kinds = hints(owner)
    keys = [key for key in section if key in kinds and key not in LEFT_ALONE and not key.endswith("_samples")]
    chosen = random.sample(keys, min(len(keys), random.randrange(most + 1)))
    return {f"{prefix}.{key}": drawn(random, kinds[key], section[key]) for key in chosen}


def as_text(value: Any) -> str:
    """A value in the notation of a command line."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{as_text(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(as_text, value))}]"
    return value if isinstance(value, str) and value else json.dumps(value)


def configuration(number: int) -> list[str]:
    """The command line of a random configuration."""
    random = Random(number)
    model, dataset = random.choice(choices("model")), random.choice(datasets.names())
    if random.random() < 0.3:  # few data sets have a reconstruction task, and those models take no others
        model = random.choice([name for name in choices("model") if name.endswith("_ae")])
        dataset = random.choice(["digits", "moving_digits", "phase_signals", "sinusoids", "ct"])
    section, data = composed("model", model), composed("dataset", dataset)
    given = {f"dataset.{key}": 7 for key in data if key.endswith("_samples")}
    for small in (SMALL["*"], SMALL.get(dataset, {})):
        given |= {f"dataset.{key}": value for key, value in small.items() if key in data}
    if "reconstruction" in data and model.endswith("_ae"):
        given["dataset.reconstruction"] = True
    given |= changes(random, "dataset", datasets._classes()[dataset], data, 2)
    given |= changes(random, "model", networks[section["network"]], section, 2)
    given.pop("model.cell_args", None)
    if "cell" in section and section["network"] == "recurrent":
        given |= changes(random, "model.cell_args", cells.get(section["cell"]), section["cell_args"], 3)
    if random.random() < 0.3:
        given |= changes(random, "train", TrainConfig, composed("train", "default"), 3)
    given["train.batch_size"] = random.choice([1, 2, 3])
    return [f"dataset={dataset}", f"model={model}", "model.preset=tiny", *(f"{key}={as_text(v)}" for key, v in given.items())]


@cache
def loaded(arguments: str) -> datasets.DataSet:
    """A data set, read or made once."""
    return datasets.load(json.loads(arguments))


def trained(arguments: list[str]) -> None:
    """Compose, load, build, and learn from one batch, with the filters of warnings that a trial has."""
    with quiet_lightning():
        warnings.simplefilter("ignore", DataWarning)
        learned(commandline.compose(arguments), "hidden_activation=id" in " ".join(arguments))


def learned(config: dict[str, Any], may_overflow: bool) -> None:
    """Load, build, and learn from one batch; a recurrence without a bounded activation may overflow."""
    data = loaded(json.dumps(config["dataset"]))
    check_fit(config, data.spec)
    torch.manual_seed(0)
    model, task = models.build(model_arguments(config), data.spec), task_for(data.spec)
    train = TrainConfig(**config["train"])
    module = SequenceModule(model, task, train, steps_per_epoch=10)
    loader = data.loader("train", train.batch_size, 0)
    batch = next(iter(loader))
    model.prepare([batch])
    model.on_epoch(0)
    configured = module.configure_optimizers()
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return
    batch = model.augment(batch)
    with torch.autocast("cpu", torch.bfloat16, enabled=train.precision == "bf16-mixed"):
        if data.spec.contiguous:
            loss = task.loss(model.carry(batch)[0], batch)
        else:
            _, loss = model.learn(batch, task)
        penalty = model.penalty()
    loss = loss if penalty is None else loss + penalty
    if may_overflow and not loss.isfinite():
        raise UserError("the loss is not finite")
    assert loss.isfinite(), f"the loss is {loss.item()}"
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"
    optimizer = configured["optimizer"] if isinstance(configured, dict) else configured
    optimizer.step()


def try_each(cases: dict[int, list[str]], action: Any) -> Counter:
    """Run an action that only a UserError may refuse; report every other end."""
    failures, outcomes = [], Counter()
    for number, arguments in cases.items():
        try:
            action(arguments)
            outcomes["done"] += 1
        except UserError:
            outcomes["refused"] += 1
        except BaseException as error:  # also SystemExit, which would end the program
            failures.append(f"{number}: {' '.join(arguments)[:700]!r}: {type(error).__name__}: {str(error)[:300]}")
    assert not failures, f"{len(failures)} of {len(cases)} ({dict(outcomes)}):\n" + "\n".join(failures)
    return outcomes


def test_a_few_configurations(offline):
    outcomes = try_each({number: configuration(number) for number in range(12)}, trained)
    assert outcomes["done"] >= 3


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_many_configurations(offline, part):
    numbers = range(1000 + 300 * part, 1000 + 300 * (part + 1))
    outcomes = try_each({number: configuration(number) for number in numbers}, trained)
    assert outcomes["done"] >= 75


KEYS = (  # noqa: SIM905
    "dataset model train runner experiment debug scale seed smoke_test output_dir traceback model.cell model.preset "
    "model.cell_args model.cell_args.hidden_size model.cell_args.architecture.ux model.cell_args.discretization model.dropout "
    "model.presets model.presets.tiny model.output_hiddens model.network dataset.name dataset.permute dataset.split_seed "
    "dataset.num_workers train.lr train.epochs train.batch_size train.schedule train.limit_val_batches train.resume "
    "runner.ntrials runner.name runner.accelerator hydra/launcher hydra/sweeper hydra/job_logging hydra/help hydra.job.name "
    "hydra.run.dir hydra.sweep.dir hydra.verbose hydra.mode hydra.searchpath hydra.sweeper.params hydra.job.chdir hydra "
    "model@other dataset@model package@:x a.b.c . .. a..b .a a. model.cell_args.0 '' \"seed\" SEED se\u00e9d "
    "\u79cd\u5b50 _target_ "
    "defaults _self_ override model/legs ../model"
).split(" ")
VALUES = (  # noqa: SIM905
    "digits|gru|legs|tiny|1|0|-0|-1|1e999|-1e999|nan|inf|1e-999|0x10|1_000|007|1.|.5|1e5|"
    "99999999999999999999999|true|False|yes|"
    "null|None||''|\"\"|\"a b\"|'it'|\"|'|\\|\\\\|a b|a=b|=|==|,|1,2|1,,2|[|]|[]|[1,2|[1,[2,[3]]]|{|}|{}|"
    "{a:1}|{a:{b:c}}|{a|(|)|${seed}|"
    "${train.epochs}|${nope}|${nope.nope}|${|$|$$|\\${seed}|${oc.env:HOME}|${oc.env:NO_SUCH}|${oc.env:}|${now:%Y}|${hydra:job}|"
    "${hydra:runtime.cwd}|${oc.create:{a:1}}|${oc.decode:1}|${oc.select:seed}|${eval:1}|${${seed}}|${model}|"
    "${.}|${..seed}|???|_|"
    "-|--|"
    "~|+|*|?|/|/etc/passwd|../..|.|..|\u00e9|\u79cd\u5b50|\U0001f600|\u202e|\t|\n|a\nb|\r|\x00|\x1b[31m|%s|"
    "%d%n|{0}|<tag>|;ls|`ls`|"
    "$(ls)|choice(1,2)|range(3)|range(1,3)|range(3,1)|range(1,2,0)|interval(0,1)|glob(*)|glob(t*)|"
    "shuffle(1,2)|sort(2,1)|tag(a,1)|"
    "str(1)|int(x)|int(1.5)|float(x)|bool(2)|json_str(1)|extend_list(1)|foo(1)|choice()|glob()|@|#|:|a:b|"
    "!!python/object:os.system|&a|"
    "*a|!x"
).split("|")
FLAGS = (  # noqa: SIM905
    "-m --multirun --cfg -c job hydra all nope --resolve --help -h --hydra-help --version -v --info --package -p --run -r "
    "--config-name -cn --config-path --config-dir -cd --experimental-rerun --shell-completion -sc - -- --- -1 -e5 --cfg=job "
    "--cfg= --help=1 --m --resolv -mm --\u79cd"
).split(" ")
HELP = {"--help", "-h", "--hydra-help", "--version", "--shell-completion", "-sc"}


def mistyped(random: Random, text: str) -> str:
    """The text with one letter removed, added or changed."""
    place = random.randrange(len(text) + 1)
    letter = random.choice("aeions._-=+~,@/ \u00e9\"'${}[]0")
    return random.choice(
        [text[:place] + text[place + 1 :], text[:place] + letter + text[place:], text[:place] + letter + text[place + 1 :]]
    )


def command_line(number: int) -> list[str]:
    """A random command line."""
    random = Random(number)
    arguments = configuration(number)[: random.randrange(12)] if random.random() < 0.7 else []
    for _ in range(random.choice([0, 1, 1, 1, 2, 3, 5])):
        key, value = random.choice(KEYS), random.choice(VALUES)
        if random.random() < 0.1:
            value = random.choice(["x", "9", "[", "{", "${", "a,", "\u00e9"]) * random.choice([100, 5000])
        argument = (
            random.choice(["", "", "", "", "+", "++", "~", "~~", "-"])
            + key
            + random.choice(["=", "=", "=", "=", "", "==", ":"])
            + value
        )
        arguments.append(mistyped(random, argument) if random.random() < 0.3 else argument)
    for _ in range(random.choice([0, 0, 0, 1, 1, 2])):
        arguments.insert(random.randrange(len(arguments) + 1), random.choice(FLAGS))
    if random.random() < 0.2:
        arguments += ["-m", f"seed={random.choice(VALUES)},{random.choice(VALUES)}"]
    return [argument.replace("\x00", "") for argument in arguments]  # no system passes that


def understood(arguments: list[str]) -> None:
    """Process a command line up to the first training."""
    try:
        translated = overrides.translate(arguments)
        run.check(translated)
        if not set(translated) & {"-m", "--multirun", *HELP}:
            commandline.compose(arguments)
    except Exception as error:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["train.py", *arguments])
            message, status = messages.describe(error)
        if status != 2:
            raise
        assert message.isprintable(), message
        assert 0 < len(message) <= 1000, message
        raise UserError(message) from None


def test_a_few_command_lines(offline):
    outcomes = try_each({number: command_line(number) for number in range(25)}, understood)
    assert outcomes["refused"] >= 12


@pytest.mark.slow
def test_many_command_lines(offline):
    outcomes = try_each({number: command_line(number) for number in range(1000, 2500)}, understood)
    assert outcomes["done"] >= 100


def ended(arguments: list[str], cwd) -> None:
    """Run the program, showing the config in place of training."""
    done = program.run(["train.py", "--cfg", "job", *arguments], cwd)
    if done.returncode == 0:
        assert done.stderr == ""
    else:
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.slow
def test_a_few_programs(offline, tmp_path):
    try_each({number: command_line(number) for number in range(100, 106)}, lambda arguments: ended(arguments, tmp_path))


@pytest.mark.slow
def test_many_programs(offline, tmp_path):
    try_each({number: command_line(number) for number in range(3000, 3300)}, lambda arguments: ended(arguments, tmp_path))
