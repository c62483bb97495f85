"""A plan's file: what is wrong with it is said in one sentence with its line and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from iarmem_plugin import InputError, Plan, read_plan

WHOLE = """\
# what is compared
[model]
name = "var-organism"

[pictures]
images = "pictures"

[scores]
unitmem = "scores"

[attack]
per-class = 3
decoding = { temperature = 0.9, top-k = 100 }

[[grid]]
fractions = [
    0.1,
    0.05,
]
selectors = ["highest", "gradient-weight"]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the plan names, and another one to stand in."""
    for name in ("pictures", "scores", "elsewhere/pictures"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "network").touch()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path


def read(folder: Path, text: str, *given: str) -> Plan:
    (folder / "plan.toml").write_text(text)
    return read_plan(folder / "plan.toml", given=given)


def refused(folder: Path, text: str, *given: str) -> str:
    with pytest.raises(InputError) as caught:
        read(folder, text, *given)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_plan_says_what_its_file_says_and_has_defaults_for_the_rest(folder: Path) -> None:
    plan = read(folder, WHOLE)
    assert plan.model.name == "var-organism"
    assert plan.attack.per_class == 3
    assert plan.attack.batch_size == 32
    assert plan.grid[0].fractions == (0.1, 0.05)
    assert plan.quality.temperature is None
    assert not isinstance(plan.attack.decoding, str)
    assert plan.attack.decoding.top_k == 100


def test_relative_paths_start_at_the_plans_folder_and_typed_ones_at_the_current(
    folder: Path,
) -> None:
    plan = read(folder, WHOLE)
    assert plan.pictures.images == folder / "pictures"
    assert plan.scores == {"unitmem": folder / "scores"}
    typed = read(folder, WHOLE, "pictures.images=pictures")
    assert typed.pictures.images == folder / "elsewhere" / "pictures"


def test_files_of_plugins_are_relative_to_the_plan_too(folder: Path) -> None:
    similar = WHOLE.replace("[attack]", "[attack]\nsimilarity = 'sscd:file=network,side=288'")
    plan = read(folder, similar)
    assert plan.attack.similarity == f"sscd:file={folder}/network,side=288"


def test_a_list_of_neurons_is_relative_to_the_plan_and_must_be_there(folder: Path) -> None:
    arm = "[[arm]]\nname = 'x'\nselector = 'listed:file=own.csv'\nintervention = 'zero'\n"
    with pytest.raises(InputError, match=r"selector is .*there is nothing at"):
        read(folder, WHOLE + arm + "fraction = 0.1\n")
    (folder / "own.csv").write_text("block,neuron\n0,1\n")
    plan = read(folder, WHOLE + arm + "fraction = 0.1\n")
    assert plan.arms()[0].selector == f"listed:file={folder}/own.csv"


def test_a_plan_comes_back_from_its_document(folder: Path) -> None:
    plan = read(folder, WHOLE + "[[arm]]\nname = 'one'\nedit = 'logit-noise:std=1'\n")
    document = plan.to_document()
    assert Plan.from_document(document) == plan
    assert document["pictures"]["images"] == str(folder / "pictures")
    assert document["attack"]["batch-size"] == 32
    assert "threshold" not in document["attack"]


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("0.05,", "1.5,", 18, "[[grid]] fractions[1] is 1.5; expected a number in (0, 1]"),
        ("0.05,", "true,", 18, "[[grid]] fractions[1] is true; expected a number in (0, 1]"),
        ("per-class = 3", "per-class = '3'", 12, "per-class is '3'; expected a whole number of 1"),
        ("per-class = 3", "per-class = 2.0", 12, "per-class is 2.0; expected a whole number of 1"),
        ("per-class", "per_class", 12, "has no key 'per_class'; did you mean 'per-class'?"),
        ("temperature = 0.9", "temperature = 0", 13, "decoding.temperature is 0; expected a num"),
        ("temperature = 0.9", "temprature = 1", 13, "[attack] decoding has no key 'temprature'"),
        ("{ temperature = 0.9, top-k = 100 }", "'drawn'", 13, "expected 'greedy', or a table"),
        ("name =", "nam =", 3, "[model] has no key 'nam'; did you mean 'name'?"),
        ("name =", "compile = 1\nname =", 3, "[model] compile is 1; expected true or false"),
        ('name = "var-organism"', "", 2, "[model] lacks 'name': a model or family listed by"),
        ("[model]", "[modell]", 2, "the plan has no key 'modell'; did you mean 'model'?"),
        ("var-organism", "var-d99", 3, "no model named 'var-d99'; installed: rar-b"),
        ('"pictures"', '"nowhere"', 6, "[pictures] images is 'nowhere'; there is nothing at /"),
        ('"pictures"', '"s3://x/y"', 6, "it looks like a URL; name a file or folder"),
        ('"pictures"', '"/dev/zero"', 6, "it is a device or pipe; name a file or folder"),
        ('"pictures"', "3", 6, "[pictures] images is 3; expected a path"),
        ('images = "pictures"', "", 5, "[pictures] names neither 'images' nor 'candidates'"),
        ('images = "pictures"', "candidates = 3", 6, "expected a path, or a table with a path"),
        ("images =", "organism = true\nimages =", 7, "an organism has its own pictures"),
        ('unitmem = "scores"', "", 15, "which needs scores; name a folder"),
        ("unitmem", '"a\\u0007"', 9, "expected a text of one line"),
        ('"highest"', '"higest"', 20, "selectors[0] is 'higest'; no selector named 'higest'"),
        ('"highest"', '"random"', 20, "random sets are drawn beside a grid's arms"),
        ('"highest"', '"highest:pool=lake"', 20, "the pool 'lake' was given"),
        ("gradient-weight", "gradient-weight:x=1", 20, "scorer 'gradient-weight' has no option"),
        ("[[grid]]", "[[grid]]\nscores = 'other'", 16, "scores is 'other'; it has: unitmem"),
        ("[[grid]]", "[[grid]]\ninterventions = []", 16, "is []; expected at least one"),
        ("[[grid]]", "[[grid]]\ninterventions = 'zero'", 16, "is 'zero'; expected a list"),
        ("[[grid]]", "[[grid]]\nrandom-sets = 10001", 16, "expected a whole number from 0 to"),
        ("[attack]", "[attack]\nbackend = 'magic'", 12, "expected 'weights' or 'trace'"),
        ("[attack]", "[attack]\nsimilarity = 'sscd'", 12, "needs file: sscd:file=..."),
        ("[attack]", "[attack]\nsimilarity = 'sscd:file=x'", 12, "there is nothing at /"),
        ("[attack]", "[attack]\nthreshold = nan", 12, "is nan; expected a finite number"),
        ("[attack]", "[quality]\nimages = 'held-out-loss'\n[attack]", 12, "measures predictions"),
        ("[attack]", "[quality]\ntemperature = 'hot'\n[attack]", 12, "above 0, or 'tuned'"),
        ("[attack]", "[quality]\ntemperature = 'tuned'\n[attack]", 12, "a measure of images, and"),
        ("[attack]", "[attack]\nnear-duplicates = 1", 12, "expected a number between 0 and 1"),
        ("[attack]", "attack = 3\n[foo]", 12, "the plan has no key"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(
    folder: Path, old: str, new: str, line: int | None, said: str
) -> None:
    assert old in WHOLE
    message = refused(folder, WHOLE.replace(old, new, 1))
    assert said in message
    if line is not None:
        assert message.startswith(f"plan.toml, line {line}: ")


def test_a_temperature_is_tuned_on_pictures_never_seen(folder: Path) -> None:
    quality = "[quality]\ntemperature = 'tuned'\nimages = 'fid:extractor=network'\n"
    assert "not trained on; give held-out in [pictures]" in refused(folder, WHOLE + quality)
    (folder / "unseen").mkdir()
    held_out = WHOLE.replace("[scores]", "held-out = 'unseen'\n[scores]")
    assert read(folder, held_out + quality).quality.temperature == "tuned"


@pytest.mark.parametrize(
    ("added", "said"),
    [
        (
            "name = 'original'\nedit = 'logit-noise:std=1'",
            "an arm is named 'original', as one that every report",
        ),
        ("name = 'x'\nselector = 'lowest'\nfraction = 0.2", "'x' lacks 'intervention'; give"),
        (
            "name = 'x'\nedit = 'logit-noise:std=1'\nfraction = 0.2",
            "has 'fraction' and 'edit'; give either",
        ),
        ("name = 'x'\nedit = 'noise'", "no edit named 'noise'; installed: fine-tune"),
        ("name = 'x'\nedit = 'logit-noise'", "takes either std or change"),
        ("name = 'x'\nedit = 'fine-tune'", "needs images to keep; give retain in [pictures]"),
        ("name = 'x'\nedit = 'logit-noise:change=1'", "were not shown; give held-out in [pic"),
        (
            "name = ''\nedit = 'logit-noise:std=1'",
            "[[arm]] name is ''; expected a text of one line",
        ),
        (
            "name = 'x'\nedit = 'logit-noise:std=1'\nrole = 'twin'",
            "expected 'treatment' or 'control'",
        ),
        (
            "name = 'x'\nedit = 'logit-noise:std=1'\n"
            "[[arm]]\nname = 'x'\nedit = 'logit-noise:std=2'",
            "two different arms are named",
        ),
    ],
)
def test_a_single_arm_is_whole_and_has_a_name_of_its_own(
    folder: Path, added: str, said: str
) -> None:
    message = refused(folder, f"{WHOLE}[[arm]]\n{added}\n")
    assert said in message
    assert int(message.removeprefix("plan.toml, line ").partition(":")[0]) > 20


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("'images'\noutcome = 'extracted'\nabove = 1", "none are generated; give images"),
        ("'pictures'\noutcome = 'extracted'\nabove = 1", "expected 'extraction' or 'images'"),
        ("'extraction'\noutcome = 'extracted'\nabove = 1", "is known after extraction"),
        ("'extraction'\noutcome = 'held-out change'\nabove = 1", "which is not measured; give"),
        ("'extraction'\noutcome = 'held-out change'", "needs either 'above' or 'below'"),
        ("'images'\noutcome = 'x'\nabove = 1", "expected 'held-out change', 'extracted' or"),
    ],
)
def test_a_rule_is_about_what_is_known_by_then(folder: Path, rule: str, said: str) -> None:
    message = refused(folder, f"{WHOLE}[[drop]]\nbefore = {rule}\n")
    assert message.startswith("plan.toml, line 2")
    assert said in message


def test_a_rule_says_itself(folder: Path) -> None:
    rule = "[[drop]]\nbefore = 'extraction'\noutcome = 'held-out change'\nabove = 0.5\n"
    plan = read(folder, WHOLE.replace("images =", "held-out = 'scores'\nimages =") + rule)
    (drop,) = plan.drop
    assert str(drop) == "before extraction, arms with held-out change above 0.5 are dropped"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (WHOLE + "x = [1,\n", "plan.toml, line 21: this is not TOML: invalid value"),
        (WHOLE + "x = 1\nx = 2\n", "plan.toml, line 22: this is not TOML: cannot overwrite"),
        ("x = " + "[" * 5000, "plan.toml is nested too deep to be a plan"),
        ("a" + ".11" * 2001 + " = 1", "plan.toml has more than 2000 dots, too many for a plan"),
        ("x = " + "9" * 5000, "plan.toml: this is not TOML: exceeds the limit"),
        ("# " + "x" * 300_000, "is larger than 0 MB"),
        ("", "plan.toml: the plan lacks 'model': the model"),
    ],
)
def test_what_is_no_plan_is_refused(folder: Path, text: str, said: str) -> None:
    assert said in refused(folder, text)


def test_bytes_that_are_no_text_are_refused(folder: Path) -> None:
    (folder / "plan.toml").write_bytes(b"\xff\xfex")
    with pytest.raises(InputError, match="is not text in UTF-16"):
        read_plan(folder / "plan.toml")
    with pytest.raises(InputError, match=r"the plan nowhere\.toml cannot be read"):
        read_plan("nowhere.toml")


@pytest.mark.parametrize(
    ("given", "key", "value"),
    [
        ("attack.prefix-tokens=5", "prefix-tokens", 5),
        ("attack.threshold = 0.75", "threshold", 0.75),
        ("attack.reference=original", "reference", "original"),
        ("attack.few-held-out=true", "few-held-out", True),
        ("attack.decoding={temperature=0.5}", "decoding", {"temperature": 0.5}),
        ("attack.similarity=correlation:threshold=0.5", "similarity", "correlation:threshold=0.5"),
        ("attack.decoding.top-k=7", "decoding", {"temperature": 0.9, "top-k": 7}),
    ],
)
def test_a_typed_value_is_toml_or_else_text(
    folder: Path, given: str, key: str, value: object
) -> None:
    found = read(folder, WHOLE, given).to_document()["attack"][key]
    if isinstance(value, dict):
        found = {name: one for name, one in found.items() if name in value}
    assert found == value


def test_a_typed_value_may_be_in_a_list_and_make_a_table(folder: Path) -> None:
    plan = read(folder, WHOLE, "grid.0.fractions=[0.2]", "twin.name=var-organism-twin", "seed=3")
    assert plan.grid[0].fractions == (0.2,)
    assert plan.twin is not None
    assert plan.seed == 3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("attack.prefix-tokens=five", "[attack] prefix-tokens is 'five'; expected a whole number"),
        ("attack.prefix=5", "[attack] has no key 'prefix'; did you mean 'prefix-tokens'?"),
        ("grid.0.fractions=[0.1, 2]", "[[grid]] fractions[1] is 2; expected a number in (0, 1]"),
        ("grid.7.fractions=[0.1]", "'7' is not in the list; expected a number from 0 to 0"),
        ("grid.x=1", "'x' is not in the list; expected a number from 0 to 0"),
        ("attack.per-class.x=1", "'x' would be inside of what is no table"),
        ("twin.device=cuda", "[twin] lacks 'name': a model or family listed by"),
        ("pictures.images=nowhere", "[pictures] images is 'nowhere'; there is nothing at /"),
        ("attack.threshold=5\nseed = 3", "threshold is '5\\nseed = 3'; expected a finite number"),
        ("attack", "write KEY=VALUE, such as attack.prefix-tokens=5"),
        ("=5", "write KEY=VALUE, such as attack.prefix-tokens=5"),
        ("a b=5", "write KEY=VALUE, such as attack.prefix-tokens=5"),
    ],
)
def test_what_is_typed_wrongly_is_named_as_typed(folder: Path, given: str, said: str) -> None:
    message = refused(folder, WHOLE, given)
    assert message.startswith(f"--set {given.encode('unicode_escape').decode()}: ")
    assert said in message


def test_candidates_come_from_one_place(folder: Path) -> None:
    ranked = WHOLE.replace("[attack]", "[attack]\nranking = 'network'")
    assert read(folder, ranked).attack.ranking == folder / "network"
    message = refused(folder, ranked.replace("images =", "candidates ="))
    assert message.startswith("plan.toml, line 12: [attack] has a ranking and [pictures] candid")


def test_the_file_is_blamed_where_the_typed_is_right(folder: Path) -> None:
    message = refused(folder, WHOLE.replace("0.05", "5"), "attack.prefix-tokens=5")
    assert message.startswith("plan.toml, line 18: ")
