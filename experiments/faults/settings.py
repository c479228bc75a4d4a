"""Fuzzes `--set`: every value is accepted, or refused in one line, without side effects.

    python experiments/faults/settings.py --cases 10000 --seed 0

Each case sets one path of a small experiment, then stores, shows and builds it; every third that
is accepted also goes through the checks of `mmjax run --summary`. Expected: 0 failures;
10,000 cases take five minutes.
"""

import argparse
import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import jax
import optax
import toy
from watch import Watch, run_cases

import mmjax
from mmjax.config import (
    ConfigError,
    apply_setting,
    build_config,
    dump_config,
    flatten_config,
    list_config_rows,
)
from mmjax.config.config_table import ConfigRow
from mmjax.train.checks.experiment_check import check_experiment

BAIT = "bait_of_the_fuzzer"  # a module that no case may import
CHECK_EVERY = 3  # one of so many accepted cases is checked as --summary does

WORDS = r"""
0 1 -1 2 3 64 1e-3 0.5 -0.5 1.0 1e999 -1e999 1e308 1e-400 nan inf None True False '' 'x' "loss" loss
digit/accuracy mean/accuracy rate/r2 float32 bfloat16 9**9 10**5000 0x10 0b1 1_000 1j 1+2j 2**31
2147483648 4294967297 -9223372036854775809 99999999999999999999999999 () [] {} (1,) (1,2) (1,'x')
[1,2] [[1]] {1} {1,2} {'a':1} {1:2} {[1]:2} {f(x):1} {**{}} b'x' b'\xff' ... Ellipsis -- ++ ** ~1
-None -'x' :: : :a a: a:b a::b a::b: a:b:c :a:b a.b:c.d kind:accuracy .:. a..b:c 1:2 /x:y x:/y
os:system os:system('x') math:sqrt math:pi math:nothing builtins:eval builtins:exec('1') sys:exit()
__main__:x __import__('os') eval('1') exec('1') open('x','w') print(1) os.system('x')
mmjax.cli.main() x:=1 (x:=1) (yield) *a *[1] (*a,) [*a] f'{x}' f'' f"{1}" rf'{x!r:>{y}}' x[0]
x[1:2] x.y x.__class__ ().__class__ ''.join a<b 1+1 2*'x' '%s'%1 'a''b' @ a@b $ ? ! \ \x '\x00'
'\ud800' '\N{BULLET}' #x x#y ; a;b a=b a==b
"""
PHRASES = r"""
lambda: 0
lambda x: x
(await x)
[x for x in y]
{x for x in y}
(x for x in y)
{x: y for x in y}
a and b
a if b else c
not 1
two words
1 is 2
import os
"""
KNOWN_CALLS = r"""
Gated(width=64) Gated(64) Gated(width=True) Gated(width=1e999) Gated(width='x') Gated(width=-1)
Gated(width=0) Gated(width=99999999999999999999) Gated(widht=1) Gated(width=1,width=2)
Gated(1,width=2) Gated(*[1]) Gated(**{'width':1}) Gated(width= Gated(width=64)) Gated()() Gated().x
Gated(width=a:b) Gated(width=[Gated()]) Gated Concat() Concat Sum() Tensor() Bottleneck() Late()
LowRankTensor() ConvEncoder() ConvEncoder(features=()) ConvEncoder(features=(0,))
ConvEncoder(features=(8,'x')) ConvEncoder(features=[8]) ConvEncoder(kernel=0) TextEncoder()
TextEncoder(embedding=8) MLPEncoder((4,)) RecurrentEncoder(cell=encoders.lstm())
RecurrentEncoder(cell=3) Classification(10) Classification(-1) Classification() MultiLabel(3)
Classification(10,loss=losses.focal) Regression() Regression(scale=0) HardSharing() MMoE()
CrossStitch() optax.adam(1e-3) optax.adam(-1) optax.adam('x') optax.adam(1e999) optax.adam()
optax.adam(learning_rate= optax.adam(None) optax.adam(optax.constant_schedule(1e-3)) optax.chain()
optax.chain(optax.clip(1.0),optax.sgd(0.1)) optax.chain(1,2) optax.sgd(0.1,momentum=2) optax.sgd
optax.MultiSteps(optax.sgd(0.1),2) optax optax.nothing() optax.GradientTransformation(1,2)
equal() pcgrad() balance.mgda() balance.cagrad(c=-1) balance.nothing() weighted() pcgrad
nn.Dense(3) nn.relu jax.nn.gelu jnp.tanh jnp.zeros(3) jnp.float32(3) jnp.load('x') jnp.save('x',1)
data.from_table('x',{},{}) data.interactions data.av_mnist mmjax.data.from_arrays({},(),())
data.augment.shift_and_crop(2) data.augment.shift_and_crop(-1) mmjax.Experiment() Model() Experiment
functools.partial(len) losses.huber huber cross_entropy losses.cross_entropy(label_smoothing=2)
InfoNCE() Distillation() mmjax.config.load('x') mmjax.provenance.make_record('x') mmjax._x()
encoders._x() mmjax.files mmjax.train.run() None() 'x'() 1() [Gated][0]() (Gated)()
"""
# Most of these values fit the type; some are out of range, which only building can detect.
FITTING = {
    "int": ["1", "1", "2", "3", "4", "5", "7", "8", "10", "16", "0", "-1", "100"],
    "float": ["0.0", "0.1", "0.25", "0.5", "0.9", "1.0", "1e-3", "1e-8", "2", "1", "0.999", "-0.1"],
    "bool": ["True", "False"],
    "None": ["None"],
    "str": ["noise", "loss", "digit/accuracy", "rate/r2", "'x'", "all", "last", "float32"],
    "tuple": ["(4,)", "(4, 8)", "(8, 8)", "(2, 3, 4)", "()", "(0,)"],
}
NUMBERS = [*map(str, (0, 1, 2, 3, 7, 8, 64, -1, 0.5, 1e-3, 1.5, 1e9, 10**9, 2**31 - 1))]
NUMBERS += ["None", "True", "()", "(4,)", "(0,)", "(8, 8)"]
BLOCKS = {
    "model.encoders": "encoders",
    "model.fusion": "fusion",
    "model.sharing": "sharing",
    "model.heads": "heads",
    "balancer": "balance",
    "augment": "data.augment",
    "optimizer": "optax",
}
LITERALS = WORDS.split() + PHRASES.strip().splitlines()
CALLS = KNOWN_CALLS.split()

LONG = [
    "(" * 100 + ")" * 100,
    "(" * 10_000 + ")" * 10_000,
    "[" * 60 + "]" * 60,
    "[" * 150 + "]" * 150,
    "{'a':" * 60 + "1" + "}" * 60,
    "-" * 9_000 + "1",
    "not " * 2_000 + "1",
    "a" + ".a" * 4_000,
    "1" + "+1" * 4_000,
    "Gated(" * 60 + ")" * 60,
    "Gated(width=" * 800 + "1" + ")" * 800,
    "9" * 5_000,
    "9" * 9_000,
    "0x" + "f" * 5_000,
    "x" * 9_999,
    "x" * 200_000,
    "'" * 9_001,
    "\\'" * 4_500,
    "a:" * 4_000,
    "\x00",
    "a\x00b",
    "'\x00'",
    "\udcff",
    "'\udcff\udc80'",
    "\ud800x",
    "a\nb",
    "1\n2",
    "\x1b[31m",
    "'\x1b]0;x\x07'",
    "\u202e",
    "\ufeff1",
    "\xa0",
    "１２",
    "ﬁ",
    "é:ü",
]
SEGMENTS = ["", "-1", "0", "1", "99", "x", "__class__", "__init__", "__fn_or_cls__", "_x", "a b"]
SEGMENTS += ["parent", "name", "None", "class", "'image'", "[0]", "\x00", "\udcff", "é", "all", "."]
CHARACTERS = "()[]{}:,.='\"*+-/\\ \n#@0123456789abcxyz_NoneTrueé\x00\udc80"


def list_literal_paths(rows: list) -> list[str]:
    """Returns the paths whose values are typed as literals, so that no module may be imported."""
    plain = {"int", "float", "bool", "str", "int | None", "str | None", "tuple[int, ...]"}
    return [row.path for row in rows if row.type in plain or row.type.startswith("'")]


def draw_path(rng: random.Random, paths: list[str]) -> str:
    """Draws a path of the experiment; a quarter of the paths have a damaged segment."""
    path = rng.choice(paths)
    if rng.random() < 0.75:
        return path
    segments = path.split(".")
    index = rng.randrange(len(segments) + 1)
    match rng.randrange(4):
        case 0:
            segments.insert(index, rng.choice(SEGMENTS))
        case 1:
            segments[index - 1] = rng.choice(SEGMENTS)
        case 2:
            del segments[index - 1]
        case 3:
            segments.append(rng.choice(SEGMENTS))
    return ".".join(segments)


def draw_expression(rng: random.Random, depth: int = 0) -> str:
    """Draws an expression from a grammar of calls, containers and literals."""
    if depth > 3 or rng.random() < 0.4:
        return rng.choice(rng.choice([LITERALS, CALLS]))
    inner = [draw_expression(rng, depth + 1) for _ in range(rng.randrange(4))]
    name = rng.choice(CALLS).partition("(")[0]
    keywords = ["width", "features", "learning_rate", "x", "loss", "size", "hidden", "c", "cell"]
    match rng.randrange(5):
        case 0:
            return f"({', '.join(inner)},)"
        case 1:
            return f"[{', '.join(inner)}]"
        case 2:
            return "{" + ", ".join(f"{draw_expression(rng, 4)}: {x}" for x in inner) + "}"
        case 3:
            return f"{name}({', '.join(inner)})"
    return f"{name}({', '.join(f'{rng.choice(keywords)}={x}' for x in inner)})"


def mutate_text(rng: random.Random, text: str) -> str:
    """Deletes, inserts, doubles or swaps a few characters."""
    letters = list(text)
    for _ in range(rng.randrange(1, 4)):
        index = rng.randrange(len(letters) + 1)
        match rng.randrange(4):
            case 0:
                letters[index : index + 1] = []
            case 1:
                letters.insert(index, rng.choice(CHARACTERS))
            case 2:
                letters[index:index] = letters[index : index + 5]
            case 3:
                letters[index : index + 2] = reversed(letters[index : index + 2])
    return "".join(letters)


def draw_value(rng: random.Random, values: list[str]) -> str:
    """Draws a value: a known one, one of the grammar, or a damaged one."""
    kind = rng.random()
    if kind < 0.06:
        return rng.choice(LONG)
    if kind < 0.35:
        return rng.choice(rng.choice([LITERALS, CALLS]))
    if kind < 0.6:
        return draw_expression(rng)
    if kind < 0.65:
        return "".join(rng.choices(CHARACTERS, k=rng.randrange(1, 30)))
    return mutate_text(rng, rng.choice([*values, *LITERALS, *CALLS]))


def draw_typed(rng: random.Random, row: ConfigRow) -> str:
    """Draws a value of the type that a path shows, or one that is near to what it has."""
    members = [part.strip() for part in row.type.split("|")]
    kind = rng.choice(members)
    if kind[:1] in "'\"":  # one of a few literal words
        return rng.choice([m.strip("'\"") for m in members if m[:1] in "'\""])
    if rng.random() < 0.2:
        return row.value
    return rng.choice(FITTING.get(kind.partition("[")[0], NUMBERS))


def draw_fitting(rng: random.Random, rows: list) -> str:
    """Draws a setting of the right kind: a number for a number, a part for a part."""
    row = rng.choice(rows)
    if not row.value.endswith(")") or row.value.startswith("("):
        return f"{row.path}={rng.choice(NUMBERS)}"
    block = next((b for path, b in BLOCKS.items() if row.path.startswith(path)), "losses")
    module = optax if block == "optax" else getattr(mmjax, block.partition(".")[0])
    module = module.augment if block == "data.augment" else module
    name = rng.choice([n for n in dir(module) if callable(getattr(module, n)) and n[0] != "_"])
    arguments = ", ".join(rng.choices(NUMBERS, k=rng.choice([0, 0, 0, 1, 2])))
    return f"{row.path}={block}.{name}({arguments})"


def main(arguments: list[str] | None = None) -> int:
    """Runs the cases, and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    rng = random.Random(options.seed)
    config = toy.experiment.as_buildable()
    rows = list_config_rows(config)
    typed = [row for row in rows if row.type.partition("[")[0].partition(" ")[0] in FITTING]
    typed += [row for row in rows if row.type.startswith("'")]
    paths, values = [row.path for row in rows], [row.value for row in rows]
    jax.numpy.float32(1)  # starts JAX
    check_experiment(
        build_config(apply_setting(config, "model.fusion=Concat()")), 1
    )  # imports what the checks need
    watch = Watch((Path(mmjax.__file__).parent, Path(__file__).parent))
    accepted = checked = 0

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, f"{BAIT}.py").write_text("x = len\n")
        sys.path.append(folder)
        try:

            def run_case(number: int) -> None:
                nonlocal accepted, checked
                kind = rng.random()
                if kind < 0.03:
                    setting = f"{rng.choice(list_literal_paths(rows))}={rng.choice(BAITS)}"
                elif kind < 0.35:
                    row = rng.choice(typed)
                    setting = f"{row.path}={draw_typed(rng, row)}"
                elif kind < 0.5:
                    setting = draw_fitting(rng, rows)
                else:
                    setting = f"{draw_path(rng, paths)}={draw_value(rng, values)}"
                with watch.case(setting, (ConfigError,)):
                    new = apply_setting(config, setting)
                    dump_config(new)
                    flatten_config(new)
                    experiment = build_config(new)
                    accepted += 1
                    if accepted % CHECK_EVERY == 0:
                        checked += 1
                        try_check(experiment)

            run_cases(options.cases, run_case)
        finally:
            sys.path.remove(folder)
    print(f"{accepted:,} settings were built; {checked:,} of them went through the checks of a run")
    return watch.report(f"--set, seed {options.seed}")


BAITS = [
    f"{BAIT}:x",
    f"{BAIT}:x.y",
    f"({BAIT}:x,)",
    f"[{BAIT}:x]",
    f"{BAIT}.x",
    f"{BAIT}.x()",
    BAIT,
]


def try_check(experiment: object) -> None:
    """Checks an experiment as --summary does, where a refusal is a ValueError raised by mmjax."""
    try:
        check_experiment(experiment, 1)
    except ValueError as error:
        raise ConfigError(str(error).partition("\n")[0]) from error


if __name__ == "__main__":
    sys.exit(main())
