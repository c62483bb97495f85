"""A bad value of every option of every command, at which stage it is refused, and in which words.

``parse``: by what reads the arguments. ``before the model``: before the loader is called, or, where
there is no model, before a store is read or a file is downloaded. ``before the pass``: once the
model is there, but before its first pass.
"""

from __future__ import annotations

PARSE, MODEL, PASS = "parse", "before the model", "before the pass"
LONG = "n" * 600

# by command: what is typed, and what is added to it, by the option it is about
COMMANDS = {
    "localize": "localize {model} --images images --out new",
    "features": "features {model} --images images --out new.npz --quality fid:extractor=list.txt",
    "rank": "rank {model} --images images --out new.nc",
    "mitigate": "mitigate {model} --scores scores --images images --out new",
    "compare": "compare {plan}{other} --out new",
    "attack": "attack {model} --candidates images --held-out many.npz --out new",
    "audit": "audit {model} --images images --held-out many.npz --out new",
    "inspect": "inspect {model} --image images/0/0.png --held-out many.npz",
    "compare-scores": "compare-scores {scores} --out new",
    "rerun": "rerun {report} --out new",
    "export": "export {source} --out new.pth --weights tiny.pth",
    "demo": "demo --out new",
    "fetch": "fetch {model}",
    "models": "models",
    "plugins": "plugins {name}",
    "store info": "store info {place}",
    "store verify": "store verify {place}",
    "store invalidate": "store invalidate {place} --slab 0",
    "store slice": "store slice {place} --out new.nc",
    "store top": "store top {place} --block 0 --neuron 0 --images images --out new.png",
}

_PICTURES = [
    ("nowhere", MODEL, "nowhere does not exist; give a folder"),
    ("empty", MODEL, "empty holds no pictures"),
    ("s3://bucket/pictures", MODEL, "looks like a URL"),
    ("/", MODEL, "is the root of all files"),
    ("/dev/zero", MODEL, "is a device or pipe"),
    (LONG, MODEL, "File name too long"),
]
_OUT = [
    ("s3://bucket/x", MODEL, "looks like a URL"),
    ("list.txt/x", MODEL, "list.txt is a file"),
    ("images/x", MODEL, "lies inside --images images"),
    ("list.txt", MODEL, "list.txt"),
    (LONG, MODEL, "File name too long"),
    ("/proc/x", MODEL, "/proc/x cannot be made"),
]
_FILE = [
    ("nowhere.pth", MODEL, "no such file: 'nowhere.pth'"),
    ("empty", MODEL, "is a folder: 'empty'"),
    ("empty.pth", MODEL, "is empty"),
    ("page.pth", MODEL, "is a web page"),
    ("hf://x/y", MODEL, "looks like a URL"),
    ("/dev/zero", MODEL, "is not a file"),
]
_FLAG = [("=x", PARSE, "does not take a value")]
_SEED = [("-1", PARSE, "greater than or equal to 0"), ("9" * 30, MODEL, "at most 9007199254740992")]
_MODEL = [("nothing", MODEL, "no model named 'nothing'"), (LONG, MODEL, "no model named")]
_COMMON = {
    "model": _MODEL,
    "--images": _PICTURES,
    "--out": _OUT,
    "--weights": [*_FILE, ("scores/scores.nc", PASS, "has no files")],
    "--tokenizer": _FILE,
    "--file": [
        ("t5.bin", MODEL, "write ROLE=PATH"),
        ("weights=", MODEL, "write ROLE=PATH"),
        ("text=nowhere.pth", MODEL, "no file of the role 'text'"),
        ("tokenizer=nowhere.pth", MODEL, "no such file: 'nowhere.pth'"),
    ],
    "--device": [
        ("mps", MODEL, "cannot use device 'mps'"),
        ("meta", MODEL, "holds no values"),
        (LONG, MODEL, "torch knows no such device"),
    ],
    "--dtype": [("float8", PARSE, "'float8' is not one of 'float32'")],
    "--compile": [*_FLAG, ("", PASS, "no tokenizer that can be compiled")],
    "--batch-size": [("0", PARSE, "greater than or equal to 1")],
    "--seed": _SEED,
    "--classes": [
        ("nowhere", MODEL, "nowhere cannot be read"),
        ("/dev/zero", MODEL, "is a device or pipe"),
        ("empty", MODEL, "empty is not a file"),
        ("s3://x/y", MODEL, "looks like a URL"),
    ],
    "--image-root": [("images", MODEL, "is for a list"), ("s3://x/y", MODEL, "looks like a URL")],
    "--on-bad-image": [("perhaps", PARSE, "is not one of")],
    "--workers": [("-1", PARSE, "greater than or equal to 0"), ("513", MODEL, "at most 512")],
    "--json": _FLAG,
}
_SET = [
    ("attack.per-class=0", MODEL, "--set attack.per-class=0: [attack] per-class is 0; expected a"),
    ("attack.per=5", MODEL, "[attack] has no key 'per'; did you mean 'per-class'?"),
    ("grid.0.selectors=['best']", MODEL, "[[grid]] selectors[0] is 'best'; no selector named"),
    ("pictures.images=nowhere", MODEL, "[pictures] images is 'nowhere'; there is nothing at"),
    ("seed", MODEL, "write KEY=VALUE"),
    (f"model.name={LONG}", MODEL, "[model] name is 'nnn"),
]
_COMPARED = {
    "--out": [*_OUT[:2], ("images/x", MODEL, "lies inside [pictures] images"), *_OUT[4:]],
    "--device": _COMMON["--device"],
    "--batch-size": _COMMON["--batch-size"],
    "--restart": _FLAG,
    "--json": _FLAG,
}
_PLACE = [
    ("nowhere.zarr", MODEL, "does not exist"),
    ("images", MODEL, "is not an activation store"),
    ("zip://x", MODEL, "the store at zip://x cannot be opened"),
    ("nosuch://x", MODEL, "the store at nosuch://x cannot be opened"),
    ("/", MODEL, "does not name a store"),
    (LONG, MODEL, "File name too long"),
]
_GROUP = [("other", MODEL, "there is no 'other'")]
_NUMBER = [("a", PARSE, "valid integer")]

_SUBSET = {
    "--images-per-class": [("0", PARSE, "or equal to 1"), ("99", MODEL, "class 0 (0) has 2")],
    "--images-fraction": [("0", MODEL, "more than 0, at most 1"), ("nan", MODEL, "nan was giv")],
    "--subset-seed": [("-1", PARSE, "or equal to 0"), ("9" * 30, MODEL, "expected at most")],
    "--subset-part": [
        ("-1", PARSE, "greater than or equal to 0"),
        ("1", MODEL, "give --images-per-class"),
    ],
    "--verify-images": _FLAG,
}

_OF_MANY = ("--images", "--out", "--image-root", "--on-bad-image", "--workers")
_AUDITED = {
    "--held-out": [*_PICTURES, ("images", MODEL, "10 held-out pictures were given, every other")],
    "--trigger": [
        ("nothing", MODEL, "no trigger named 'nothing'; installed: "),
        ("relearn", MODEL, "needs images of its training"),
        ("prefix --trigger prefix", MODEL, "was given twice"),
    ],
    "--rate": [("x", PARSE, "valid number"), ("1", MODEL, "below 1"), ("nan", MODEL, "nan")],
    "--neurons": _FLAG,
}

REFUSED: dict[str, dict[str, list[tuple[str, str, str]]]] = {
    "rank": {option: rows for option, rows in _COMMON.items() if option != "--seed"}
    | _SUBSET
    | {
        "--out": [
            ("s3://bucket/x.nc", MODEL, "looks like a URL"),
            ("list.txt/x.nc", MODEL, "list.txt is a file"),
            ("images/x.nc", MODEL, "lies inside --images images"),
            ("empty", MODEL, "empty is a folder; name a file"),
            (f"{LONG}.nc", MODEL, "File name too long"),
        ],
        "--cache": [
            ("list.txt", MODEL, "list.txt is a file or a link"),
            ("s3://bucket/x", MODEL, "looks like a URL"),
            ("images/x", MODEL, "--cache images/x lies inside --images images"),
        ],
        "--chunk": [("0", PARSE, "greater than or equal to 1")],
    },
    "features": {
        option: rows
        for option, rows in _COMMON.items()
        if option not in ("--seed", "--weights", "--tokenizer", "--file", "--dtype", "--compile")
    }
    | _SUBSET
    | {
        "--out": [
            ("s3://bucket/x.npz", MODEL, "looks like a URL"),
            ("list.txt/x.npz", MODEL, "list.txt is a file"),
            ("images/x.npz", MODEL, "lies inside --images images"),
            ("new.txt", MODEL, "is not an .npz file; name one"),
            (f"{LONG}.npz", MODEL, "File name too long"),
        ],
        "--quality": [
            ("beauty", MODEL, "no quality named 'beauty'"),
            ("fid:extractor=nowhere", MODEL, "no Inception weights at nowhere"),
            ("fid:extractor=/dev/zero", MODEL, "is a device or pipe"),
        ],
    },
    "localize": _COMMON
    | _SUBSET
    | {
        "--metric": [
            ("fame", MODEL, "no metric named 'fame'"),
            ("random --metric random", MODEL, "each once"),
            ("random:seed=1 --metric random:seed=1", MODEL, "each once"),
            ("random:seed=x", MODEL, "seed=x; expected int; it has: seed (int, 0)"),
            ("random:sed=1", MODEL, "no option 'sed'; it has: seed (int, 0)"),
        ],
        "--store": [
            ("new/deep/x.zarr", MODEL, "in each other's way"),
            ("new", MODEL, "in each other's way"),
            ("images", MODEL, "is not an activation store"),
            ("images/x.zarr", MODEL, "lies inside --images images"),
            ("list.txt/x.zarr", MODEL, "list.txt is a file"),
            ("zip://x", MODEL, "cannot be opened"),
            ("n" * 250, MODEL, "File name too long"),  # of the lock beside it
            (LONG, MODEL, "File name too long"),
        ],
        "--keep-bits": [("24", PARSE, "or equal to 23"), ("5", MODEL, "give --store, too")],
        "--break-lock": [*_FLAG, ("", MODEL, "give --store, too")],
        "--restart": _FLAG,
        "--slab": [("0", PARSE, "greater than or equal to 1")],
        "--views": [("0", PARSE, "greater than or equal to 1"), ("10001", MODEL, "most 10000")],
        "--band": [
            ("x=0-9x", MODEL, "is not a span of tokens"),
            ("1-4", MODEL, "has no name of its own"),
            ("\x1b[31m=1", MODEL, "has a name that cannot be shown"),
            (f"{LONG}=1", MODEL, "has a name that cannot be shown"),
            ("x=1-999", PASS, "give tokens from 1 to"),
            ("[/a]=0", PASS, "band '[/a]'"),
        ],
    },
    "mitigate": _COMMON
    | {
        "--scores": [
            ("nowhere", MODEL, "there are no scores at nowhere"),
            ("list.txt", MODEL, "cannot be read as netCDF"),
            ("others", MODEL, "they were made with another model"),
            ("s3://x/y", MODEL, "looks like a URL"),
            ("/dev/zero", MODEL, "is a device or pipe"),
        ],
        "--fraction": [("1.5", MODEL, "expected one in (0, 1]"), ("nan", MODEL, "a finite number")],
        "--intervention": [
            ("pray", MODEL, "no intervention named 'pray'"),
            ("scale-weights:factr=1", MODEL, "no option 'factr'; it has: factor (float, 0.5)"),
            ("scale-weights:factor=x", MODEL, "factor=x; expected float; it has: factor"),
            ("scale-weights:factor=nan", MODEL, "a finite number"),
            ("zero:factor=1", MODEL, "it has: no options"),
            ("zero:", MODEL, "write NAME:KEY=VALUE"),
        ],
        "--selector": [
            ("best", MODEL, "no selector named 'best'"),
            ("weight-norm:views=1", MODEL, "scorer 'weight-norm' has no option 'views'"),
            ("gradient-weight", MODEL, "give them with --contrast-with, or --held-out"),
            ("highest:pool=lake", MODEL, "the pool 'lake' was given"),
            ("highest:pools=block", MODEL, "no option 'pools'; it has: pool (text, model)"),
            ("listed", MODEL, "needs file: listed:file=..."),
            ("listed:file=nowhere", MODEL, "the neuron list nowhere cannot be read"),
            ("listed:file=list.txt", MODEL, "expected a line with the columns block,neuron"),
            ("listed:file=/dev/zero", MODEL, "is not a file"),
        ],
        "--random-sets": [("-1", PARSE, "or equal to 0"), ("10001", MODEL, "at most 10000")],
        "--similarity": [
            ("taste", MODEL, "no similarity named"),
            ("sscd", MODEL, "needs file: sscd:file=..."),
            ("correlation:file=list.txt", MODEL, "has no option 'file'; it has: threshold"),
            ("sscd:file=list.txt", MODEL, "is not a TorchScript network"),
            ("sscd:file=list.onnx", MODEL, "list.onnx is not an ONNX network"),
            ("sscd:file=list.txt,side=300", MODEL, "side=300; expected 288 or 320 or none"),
            ("sscd:file=nowhere", MODEL, "no SSCD file at nowhere"),
            ("sscd:file=/dev/zero", MODEL, "is a device or pipe"),
        ],
        "--candidates": _PICTURES,
        "--ranking": [
            ("nowhere", MODEL, "the ranking nowhere cannot be read"),
            ("list.txt", MODEL, "holds no ranking, or is damaged"),
            ("empty", MODEL, "is a folder; name the file"),
            ("/dev/zero", MODEL, "is a device or pipe"),
            ("other.nc", MODEL, "of 4 ranked images are not among the 10 that"),
            ("foreign.nc", PASS, "was made by another model: dtype, model, tokenizer_sha256"),
            ("other.nc --candidates images", MODEL, "give one of --ranking and --candidates"),
        ],
        "--near-duplicates": [
            ("x", PARSE, "valid number"),
            ("1", MODEL, "expected a correlation between 0 and 1"),
            ("nan", MODEL, "expected a finite number"),
        ],
        "--held-out": [*_PICTURES, ("images", MODEL, "5 are too few for that")],
        "--contrast-with": [
            *_PICTURES,
            ("images", MODEL, "--contrast-with is for selectors that contrast, and highest does"),
        ],
        "--few-held-out": _FLAG,
        "--threshold": [("x", PARSE, "valid number"), ("inf", MODEL, "expected a finite number")],
        "--per-class": [("0", PARSE, "greater than or equal to 1")],
        "--quality": [
            ("beauty", MODEL, "no quality named 'beauty'"),
            ("fid", MODEL, "needs extractor: fid:extractor=..."),
            ("fid:extractor=list.txt", MODEL, "holds no Inception weights"),
            ("fid:extractor=nowhere", MODEL, "no Inception weights at nowhere"),
            ("fid:extractor=/dev/zero", MODEL, "is a device or pipe"),
            ("fd-dinov2", MODEL, "needs weights: fd-dinov2:weights=..."),
            ("fd-dinov2:weights=images", MODEL, "no DINOv2 weights at images/model.safetensors"),
            ("fd-dinov2:weights=list.txt", MODEL, "settings config.json cannot be read"),
            ("held-out-loss", MODEL, "give them with --held-out"),
            (
                "held-out-loss --quality held-out-loss",
                MODEL,
                "at most one measure of images, such as fid, and one of predictions",
            ),
        ],
        "--reference": [
            ("images", MODEL, "give --quality with a measure of images, too"),
            *(("/ --quality fid:extractor=list.txt", MODEL, "is the root of all files"),),
            ("odd.npz --quality fid:extractor=list.txt", MODEL, "odd.npz is no reference: sigma"),
        ],
        "--generated": [("1", PARSE, "or equal to 2"), ("10000001", MODEL, "at most 10000000")],
        "--recalibrate": _FLAG,
        "--generations": [
            ("-1", PARSE, "or equal to 0"),
            ("1000001", MODEL, "at most 1000000"),
        ],
        "--seeds": [
            ("0", PARSE, "or equal to 1"),
            ("1001", MODEL, "at most 1000"),
            ("2", MODEL, "give --quality with a measure of images, too"),
        ],
        "--temperature": [
            ("1", MODEL, "give --quality with a measure of images, too"),
            ("0 --quality fid:extractor=list.txt", MODEL, "'0' was given; expected a number above"),
            ("hot --quality fid:extractor=list.txt", MODEL, "expected a number above 0, or tuned"),
            ("tuned --quality fid:extractor=list.txt", MODEL, "give them with --held-out"),
        ],
        "--restart": _FLAG,
        "--check-batching": [("-1", PARSE, "or equal to 0"), ("9" * 9, MODEL, "at most 1000000")],
    },
    "compare": _COMPARED
    | {
        "plan": [
            ("nowhere.toml", MODEL, "the plan nowhere.toml cannot be read: No such file"),
            ("images", MODEL, "the plan images is not a file"),
            ("page.pth", MODEL, "page.pth, line 1: this is not TOML: "),
            ("list.txt", MODEL, "list.txt, line 1: this is not TOML: "),
            ("/dev/zero", MODEL, "the plan /dev/zero is not a file"),
            (LONG, MODEL, "File name too long"),
            ("report", MODEL, "report is a report; give another one beside it, or a plan's file"),
        ],
        "other": [
            (" planless", MODEL, "plan.toml is a file, and reports are folders"),
            (" planless --json --set seed=1", MODEL, "two reports are put side by side, and noth"),
            (" planless --preset paper", MODEL, "leave all options but --out and --json out"),
        ],
        "--set": _SET,
        "--dry-run": _FLAG,
        "--preset": [("paper", MODEL, "--preset is for writing a plan, and plan.toml is one")],
        "--write": [("new.toml", MODEL, "--write is for writing a plan")],
        "--model": [("tiny", MODEL, "--model is for writing a plan")],
    },
    "rerun": _COMPARED
    | {
        "--out": [*_COMPARED["--out"], ("report", MODEL, "--out report is the report itself")],
        "report": [
            ("nowhere", MODEL, "nowhere holds no report.json"),
            ("images", MODEL, "images holds no report.json"),
            ("planless", MODEL, "planless holds no plan, so it cannot be run again"),
            (LONG, MODEL, "holds no report.json"),
        ],
        "--set": _SET,
    },
    "attack": _COMPARED
    | {
        "model": _MODEL,
        "--out": [*_OUT[:2], ("images/x", MODEL, "lies inside [pictures] can"), *_OUT[4:]],
        "--trigger": [
            ("nothing", MODEL, "no trigger named 'nothing'; installed: "),
            ("prefix:budgets=x", MODEL, "trigger 'prefix' was given budgets=x"),
            ("samples:budgets='4,1'", MODEL, "expected numbers that rise"),
            ("learned-embedding:lr=0", MODEL, "expected a number above 0"),
            ("rounded:bits=99", MODEL, "expected 2 to 16"),
        ],
        "--mitigated": [
            ("plan.toml", MODEL, "the comparison has pictures of its own"),
            ("nowhere", MODEL, "the comparison has pictures of its own"),
        ],
        "--arm": [("nothing", MODEL, "[recovery] arms has 'nothing'; ")],
        "--candidates": [("nowhere", MODEL, "nowhere does not exist; give a folder")],
        "--held-out": [("nowhere", MODEL, "nowhere does not exist; give a folder")],
        "--pictures": [("0", PARSE, "greater than or equal to 1")],
        "--seed": _SEED,
        "--weights": _FILE,
        "--tokenizer": _FILE,
        "--file": _COMMON["--file"],
        "--dry-run": _FLAG,
    },
    "audit": _COMMON | _AUDITED | {"--out": [*_OUT, ("images", MODEL, "images holds other files")]},
    "inspect": {
        option: rows
        for option, rows in _COMMON.items()
        if option not in ("--images", "--out", "--image-root", "--on-bad-image", "--workers")
    }
    | _AUDITED
    | {
        "--image": [
            ("nowhere.png", MODEL, "nowhere.png is no file; name one picture"),
            ("list.txt", MODEL, "list.txt"),
            ("s3://bucket/x.png", MODEL, "looks like a URL"),
        ],
        "--label": [("-1", PARSE, "greater than or equal to 0"), ("99", MODEL, "99")],
    },
    "compare-scores": {
        "scores": [
            ("scores", MODEL, "1 scores were given; give two or more"),
            ("scores nowhere", MODEL, "there are no scores at nowhere"),
            ("scores others", MODEL, "scores of the same neurons at the same scales can be comp"),
            ("scores list.txt", MODEL, "list.txt cannot be read as netCDF"),
            ("scores scores", MODEL, "scores is given twice; give each scores once, with a name"),
            ("a=scores a=others", MODEL, "a is given twice"),
        ],
        "--fraction": [("0", MODEL, "expected one in (0, 1]"), ("x", PARSE, "valid number")],
        "--out": [
            *(_OUT[0], _OUT[1], _OUT[3], _OUT[4]),
            ("images", MODEL, "images holds other files, such as '0', and no score_comparison"),
        ],
        "--json": _FLAG,
    },
    "export": {
        "source": [
            ("nowhere", MODEL, "no model named 'nowhere'"),
            ("images", MODEL, "images holds no report.json"),
            ("images/nowhere", MODEL, "is neither a report's folder nor a model's name"),
            ("tiny", MODEL, "tiny is a model, so give its neurons and an intervention"),
            (LONG, MODEL, "no model named 'nnn"),
        ],
        "--out": [
            ("s3://bucket/x.pth", MODEL, "looks like a URL"),
            ("list.txt/x.pth", MODEL, "list.txt is a file"),
            ("new.bin", MODEL, "end its name in .pth or .safetensors"),
            ("tiny.pth", MODEL, "is there, and is not overwritten"),
            ("tiny.pth --overwrite", MODEL, "tiny.pth is the original, which would be lost"),
            (f"{LONG}.pth", MODEL, "File name too long"),
        ],
        "--arm": [
            ("other", MODEL, "the report has no arm 'other'; its arms: 'original'"),
            ("original", MODEL, "arm 'original' edits nothing"),
        ],
        "--half": [("2", PARSE, "less than or equal to 1"), ("1", MODEL, "is not cross-fitted")],
        "--neurons": [
            ("list.csv", MODEL, "leave out --neurons and --intervention"),
            ("s3://x/y", MODEL, "looks like a URL"),
            ("/dev/zero", MODEL, "is a device or pipe"),
        ],
        "--intervention": [("zero", MODEL, "leave out --neurons and --intervention")],
        "--weights": [*_FILE, ("other.pth", MODEL, "other weights than the report was made with")],
        "--overwrite": _FLAG,
        "--json": _FLAG,
    },
    "demo": {
        "--out": [_OUT[0], _OUT[1], _OUT[4], ("images", MODEL, "it is not overwritten")],
        "--full": _FLAG,
        "--model": [*_MODEL, ("tiny", MODEL, "is not an organism")],
        "--seed": _SEED,
        "--json": _FLAG,
    },
    "fetch": {
        "model": [*_MODEL, ("tiny", MODEL, "is not on the Hugging Face hub")],
        "--out": [_OUT[0], _OUT[1], ("list.txt", MODEL, "list.txt"), _OUT[4]],
        "--json": _FLAG,
    },
    "models": {"--json": _FLAG},
    "plugins": {"name": [("nothing", MODEL, "no plugin named 'nothing'")], "--json": _FLAG},
    "store info": {"place": _PLACE, "--json": _FLAG},
    "store verify": {
        "place": _PLACE,
        "--model": _GROUP,
        "--deep": [("=x", PARSE, "does not take a value")],
        "--json": _FLAG,
    },
    "store invalidate": {
        "place": _PLACE,
        "--slab": [*_NUMBER, ("-1", MODEL, "slab -1 was given"), ("9" * 30, MODEL, "slab 999")],
        "--model": _GROUP,
    },
    "store slice": {
        "place": _PLACE,
        "--out": [
            ("new.csv", MODEL, "neither .nc nor .npz"),
            ("s3://x/new.nc", MODEL, "looks like a URL"),
            ("list.txt/new.nc", MODEL, "list.txt is a file"),
            (f"{LONG}.nc", MODEL, "File name too long"),
        ],
        "--block": [*_NUMBER, ("9", MODEL, "there is no block 9"), ("-1", MODEL, "no block -1")],
        "--scale": [*_NUMBER, ("9", MODEL, "there is no scale 9")],
        "--neuron": [*_NUMBER, ("9" * 30, MODEL, "there is no neuron 999")],
        "--model": _GROUP,
    },
    "store top": {
        "place": _PLACE,
        "--block": [*_NUMBER, ("9", MODEL, "there is no block 9")],
        "--neuron": [*_NUMBER, ("-1", MODEL, "there is no neuron -1")],
        "--images": [
            ("nowhere", MODEL, "nowhere"),
            ("s3://x/y", MODEL, "looks like a URL"),
            ("/", MODEL, "is the root of all files"),
        ],
        "--out": [
            ("new.jpg", MODEL, "is not a .png file"),
            ("s3://x/new.png", MODEL, "looks like a URL"),
        ],
        "--scale": [*_NUMBER, ("9", MODEL, "there is no scale 9")],
        "--count": [("0", PARSE, "or equal to 1"), ("501", PARSE, "or equal to 500")],
        "--model": _GROUP,
        "--image-root": _COMMON["--image-root"],
    },
}
