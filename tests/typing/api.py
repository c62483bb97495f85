"""The public names as users write them; type-checked, never run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from PIL import Image

import iarmem_plugin as iarmem
from iarmem_plugin import (
    MLP,
    SSCD,
    ActivationIntervention,
    ActivationStore,
    Adapter,
    Arm,
    Augmentation,
    Candidates,
    CaptureOptions,
    CaptureSettings,
    Checkpoint,
    Clamp,
    Completion,
    Condition,
    CrossFit,
    Curve,
    CustomViews,
    DatasetInference,
    DinoV2,
    EditData,
    Estimate,
    Expectation,
    ExtractionOptions,
    FineTune,
    ForwardInputs,
    GradientAscent,
    HeldOutLoss,
    Highest,
    IarmemError,
    ImageARModel,
    Images,
    ImageScorer,
    InputError,
    Intervention,
    LeavingOut,
    Listed,
    LogitNoise,
    LossProtocol,
    LossQuality,
    Lowest,
    MeanAblate,
    Membership,
    Metric,
    ModelEdit,
    ModelLayout,
    NeuronFacts,
    NeuronWeights,
    PixelCorrelation,
    Plan,
    PlannedArm,
    Plugin,
    PluginError,
    Prediction,
    Quality,
    QualityProtocol,
    QualityValue,
    Random,
    RandomMatched,
    Ranking,
    Ranks,
    Reads,
    Recalibration,
    Recognition,
    Report,
    Sampling,
    Scale,
    ScaleBiases,
    ScaleOutgoing,
    ScaleWeights,
    ScaleWeightsAndBiases,
    ScoreComparison,
    Selector,
    SideBySide,
    Similarity,
    Site,
    StoreOptions,
    TenCrops,
    TokenByToken,
    TorchFidelity,
    TunedSampling,
    Variant,
    Views,
    Writes,
    Zero,
    ZeroWeights,
    calibrate,
    capture,
    compare,
    compare_membership,
    compare_scores,
    contrast,
    cross_fit,
    dataset_inference,
    equal_fraction,
    equal_quality,
    estimate,
    export,
    extract,
    holm,
    hookimpl,
    intervene,
    join_processes,
    load,
    load_scores,
    localize,
    loss_protocol,
    make_targets,
    membership_files,
    membership_signals,
    membership_table,
    mitigate,
    quality_protocol,
    rank,
    read_plan,
    save_scores,
    score_on_cluster,
    select,
    side_by_side,
    smallest_difference,
    tune_sampling,
    with_generations,
    wrap,
)

version: str = iarmem.__version__


def find_and_reduce(weights: Path, tokenizer: Path, pictures: Path, out: Path) -> Report:
    model: ImageARModel = load("var-d16", weights, tokenizer, device="cuda", dtype="bfloat16")
    images: Images = Images.from_folder(pictures, num_classes=1000)
    options = CaptureOptions(views=10, batch_size=8)
    kept = StoreOptions(out / "x.zarr", keep_bits=13, lock="break")
    scores: xr.Dataset = localize(model, images, metric="unitmem", options=options, store=kept)
    candidates = Candidates(images, scores["score"].values)
    arms = [
        Arm("highest", Highest(), ScaleWeights(factor=0.5), fraction=0.1),
        Arm("lowest", Lowest(pool="block"), ScaleWeightsAndBiases(factor=0.5), fraction=0.1),
        Arm("random", Random(), Zero(), fraction=0.1, seed=1, role="control"),
        Arm("matched", RandomMatched(to="highest", bins=20), ScaleOutgoing(factor=0.5)),
    ]
    closeness: Similarity = similarity()
    extraction = ExtractionOptions(prefix_tokens=30, batch_size=8, reference="original")
    report: Report = mitigate(
        model, scores, candidates, arms, similarity=closeness, options=extraction
    )
    report.save(out)
    return report


def ranked(model: ImageARModel, images: Images, folder: Path) -> Candidates:
    found: Ranking = rank(model, images, cache=folder / "cache", workers=4, ranks=Ranks())
    found.save(folder / "ranking.nc")
    again = Ranking.load(folder / "ranking.nc")
    again.check_model(model)
    best: Candidates = again.candidates(images, global_top=100)
    return again.candidates(images, per_class=5, near_duplicates=0.8) if len(best) else best


def both_outcomes(
    model: ImageARModel, twin: ImageARModel, scores: xr.Dataset, tried: Candidates, unseen: Images
) -> Report:
    recognition = Recognition(threshold=0.1, source="by hand", prefix_tokens=30)
    measure: LossQuality = HeldOutLoss()
    losses: LossProtocol = loss_protocol(model, measure, unseen, model.adapter.variant.views)
    drawn = with_generations(model, tried, tried.images, 20, sampling=Sampling(greedy=False))
    again = Recalibration(Candidates(unseen, tried.group), rate=0.05, arms=None)
    return mitigate(
        *(model, scores, drawn, []),
        recalibration=again,
        similarity=similarity(),
        recognition=recognition,
        losses=losses,
        twin=twin,
    )


def contrasted(model: ImageARModel, tried: Candidates, unseen: Images) -> list[Arm]:
    scorer: str | ImageScorer = "gradient-weight:batch_size=8"

    def score(images: Images) -> xr.Dataset:
        return contrast(model, images, unseen, scorer=scorer)

    cross: CrossFit = cross_fit(tried, score, seed=1)
    return [
        Arm("split", Highest(), ScaleWeights(0.5), scores=cross),
        Arm("whole", Highest(), ScaleWeights(0.5), scores=cross.scores[0]),
    ]


def without(model: ImageARModel, images: Images, metrics: tuple[Metric, Metric]) -> xr.Dataset:
    left_out = LeavingOut(metrics[1], images.ids[:5])
    found = localize(model, images, metric=(metrics[0], left_out))
    return found[left_out.key]


def planned(file: Path) -> list[PlannedArm]:
    plan: Plan = read_plan(file, given=["attack.prefix-tokens=5"])
    again = Plan.from_document({**plan.to_document(), "seed": 1})
    treated = [arm for arm in again.arms() if arm.role == "treatment"]
    return [arm for arm in plan.arms() if {one.name for one in treated} & set(arm.stands_for)]


def compared(file: Path, out: Path) -> Report | None:
    taken: Estimate = estimate(read_plan(file))
    if taken.steps[-1].seconds > 3600:
        return None
    return compare(read_plan(file), out)


def taken_home(report: Report, weights: Path, out: Path) -> tuple[Arm, Checkpoint]:
    file: Path = export(report, out, arm="highest", half=None, weights=weights, overwrite=True)
    adapter: type[Adapter] = type(wrap(torch.nn.Linear(1, 1)).adapter)
    listed = Listed(out.with_suffix(".neurons.csv"))
    return Arm("again", listed, ScaleWeights(0.5)), adapter.checkpoint("var-d16", file)


def missed(prediction: Prediction) -> float:
    return float((prediction.logits.argmax(2) != prediction.tokens).double().mean())


def similarity(file: Path | None = None) -> Similarity:
    return (
        PixelCorrelation(threshold=0.9) if file is None else SSCD(file, side=288, resize="pillow")
    )


def hand_over(official: torch.nn.Module, tokenizer: torch.nn.Module | None) -> ImageARModel:
    return wrap(official, tokenizer)


def keep(scores: xr.Dataset, folder: Path) -> xr.Dataset:
    return load_scores(save_scores(scores, folder))


def beside(first: Report, second: Report, out: Path) -> Path:
    found: SideBySide = side_by_side(first, second, names=("a", "b"))
    differences = [one.difference for one in found.outcomes if one.p is not None and one.p < 0.05]
    print(found.table(), differences, [one.key for one in found.settings])
    scores: ScoreComparison = compare_scores({"a": first.scores, "b": second.scores}, fraction=0.05)
    shares: list[float | None] = [pair.share for pair in scores.pairs]
    print(scores.table(), shares)
    return found.save(scores.save(out) / "reports")


def step_by_step(model: ImageARModel, images: Images, metric: Metric) -> xr.Dataset:
    views: Augmentation = model.adapter.variant.views
    for batch in capture(model, images, views=10, augmentation=views):
        metric.update(batch)
    scores = xr.Dataset({"score": metric.compute()})
    neurons: xr.DataArray = select(scores, fraction=0.1)
    candidates = Candidates(images, scores["score"].values)
    targets = make_targets(model, candidates, views)
    with intervene(model, neurons, ZeroWeights(), backend="weights") as edited:
        tokens = edited.complete(
            torch.zeros(4, 0, dtype=torch.int64),
            Condition.of(torch.arange(4)),
            Sampling(greedy=False, seed=1),
        )
        pictures: torch.Tensor = edited.decode(tokens)
        return extract(
            edited, candidates, targets, similarity=similarity(), prefix_tokens=len(pictures)
        )


def measured(closeness: Similarity, values: list[float], inception: Path) -> QualityProtocol:
    calibrate(closeness, values, rate=0.01, source="held-out pictures")
    measure = TorchFidelity(inception, "Inception v3")
    real = measure.features([torch.zeros(2, 3, 8, 8)])
    return QualityProtocol(
        measure, {"real": real}, Condition.of(range(200)), Sampling(greedy=False)
    )


def dinov2(folder: Path) -> Quality:
    return DinoV2(folder, device="cpu")


def tuned(model: ImageARModel, inception: Path, real: Images, unseen: Images) -> QualityProtocol:
    measure = TorchFidelity(inception, "Inception v3")
    found: TunedSampling = tune_sampling(model, measure, unseen, generated=1000, seed=0)
    temperature: float = found.temperature
    return quality_protocol(
        model,
        measure,
        {"real": real},
        generated=1000,
        seed=0,
        seeds=3,
        temperature=found if temperature < 1 else temperature,
        beside={"real": ("others", unseen)},
    )


class Unchanged(ModelEdit):
    name, needs = "unchanged", frozenset({"retained"})

    @contextmanager
    def edited(self, model: ImageARModel, data: EditData, *, seed: int) -> Iterator[ImageARModel]:
        assert len(data.having("retained")) > 0
        yield model


def baselines(
    model: ImageARModel, scores: xr.Dataset, tried: Candidates, members: Images, unseen: Images
) -> Report:
    losses = loss_protocol(model, HeldOutLoss(), unseen, model.adapter.variant.views)
    arms = [
        Arm("noise", edit=LogitNoise(change=0.05), role="control"),
        Arm("fine-tuned", edit=FineTune(steps=60, lr=3e-4)),
        Arm("ascent", edit=GradientAscent(steps=10, weight=1.0), seed=2),
        Arm("unchanged", edit=Unchanged()),
    ]
    return mitigate(
        model, scores, tried, arms, similarity=similarity(), losses=losses, retained=members
    )


def open_store(path: Path) -> ActivationStore:
    try:
        return ActivationStore.open(path)
    except IarmemError as error:
        raise SystemExit(str(error)) from error


def lay_out_a_store(model: ImageARModel, images: Images, place: Path) -> list[int]:
    settings = CaptureSettings("mine", model.layout, images, slab=128, seed=3)
    store = ActivationStore.create(place, settings)
    fingerprint: str = settings.fingerprint
    return store[f"mine {fingerprint}"].pending() + store.pending("mine")


def score_store(store: ActivationStore, metric: Metric) -> xr.DataArray:
    return score_on_cluster(store, metric) - score_on_cluster(store, "unitmem", model="var-d30")


class Halve(Intervention):
    name = "halve"

    @property
    def parameters(self) -> Mapping[str, float]:
        return {}

    def edit(self, neurons: NeuronWeights) -> NeuronWeights:
        return replace(neurons, reads={name: rows / 2 for name, rows in neurons.reads.items()})


class Quieter(ActivationIntervention):
    name = "quieter"

    @property
    def parameters(self) -> Mapping[str, float]:
        return {}

    def apply(self, neuron: torch.Tensor, facts: NeuronFacts) -> torch.Tensor:
        return neuron / (1 + facts.block)


@hookimpl
def provide_interventions() -> Iterable[type[Intervention] | type[ActivationIntervention]]:
    return [Halve, Quieter]


def edit_values(model: ImageARModel, scores: xr.Dataset) -> list[str]:
    neurons, mean = select(scores, fraction=0.1), scores["mean_activation"].mean("scale")
    with intervene(model, neurons, MeanAblate(), mean=mean) as once:
        with intervene(once, neurons, Clamp(low=None, high=2.0)) as twice:
            edits = [ScaleBiases(0.5, reads=("gate",)), ScaleWeights(0.5, reads="up")]
            return [repr(twice), *map(repr, edits)]


kinds: tuple[type, ...] = (Adapter, Metric, Intervention, Selector, Similarity, Quality)


def own_views(model: ImageARModel, images: Images) -> None:
    def shrunk(picture: Image.Image, *, image: int, view: int, seed: int) -> Image.Image:
        return picture.resize((256, 256), reducing_gap=1 + view)

    choices: list[Augmentation] = [Views(crop=256, resize=288, flip=True), TenCrops(crop=256)]
    choices.append(CustomViews(shrunk, center_of=choices[0]))
    for augmentation in choices:
        next(capture(model, images, augmentation=augmentation))


def part_of_a_list(listed: Path, pictures: Path) -> Images:
    images = Images.from_list(listed, root=pictures, num_classes=1000)
    part: Images = images.balanced(13, seed=0, part=1).join(images.balanced(fraction=0.01))
    part.write_list(listed)
    return part.check_headers().verify("skip", workers=4)


def score_by_several_on_every_gpu(model: ImageARModel, images: Images, out: Path) -> None:
    with join_processes("cuda") as ranks:
        alone: bool = ranks == Ranks()
        scores: dict[str, xr.Dataset] = localize(
            model, images, metric=["unitmem", "random"], checkpoints=out / "progress", ranks=ranks
        )
        if ranks.first and not alone:
            save_scores(scores, out)


class Raster(TokenByToken):
    """A gated model of one block and sixteen tokens behind a prompt of four."""

    name, conditions, caches = "raster", frozenset({"text"}), True

    def __init__(self, network: torch.nn.Module, tokenizer: torch.nn.Module) -> None:
        gate, up = Reads("layers.{block}.gate_proj"), Reads("layers.{block}.up_proj")
        writes, neuron = Writes("layers.{block}.down_proj"), Site("layers.{block}.act")
        self.network, self.tokenizer = network, tokenizer
        self.layout = ModelLayout(
            family=self.name,
            num_blocks=1,
            neurons_per_block=64,
            scales=(Scale("all", tuple(range(16))),),
            mlp=MLP(writes, {"gate": gate, "up": up}, neuron=neuron),
            predicting=range(3, 19),
        )
        self.variant = Variant.of(
            network, self.layout, name=self.name, resolution=8, prefix_tokens=4
        )

    @classmethod
    def variants(cls) -> Mapping[str, Variant]:
        return {}

    @classmethod
    def load(cls, variant: str, **_: object) -> Raster:
        raise InputError("wrap the model")

    @classmethod
    def matches(cls, model: torch.nn.Module) -> bool:
        return False

    @classmethod
    def from_model(cls, model: torch.nn.Module, tokenizer: torch.nn.Module | None) -> Raster:
        if tokenizer is None:
            raise PluginError(f"{cls.name} was given no tokenizer")
        return cls(model, tokenizer)

    def tokenize(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, 0].flatten(1).long()

    def decode(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.view(-1, 1, 4, 4).expand(-1, 3, -1, -1) / 255

    def inputs(
        self, condition: Condition, tokens: torch.Tensor, *, unconditional: bool = False
    ) -> ForwardInputs:
        return ForwardInputs((condition.text, tokens), {"guided": not unconditional})


class Darkness(Similarity):
    name = "darkness"

    def compare(self, completion: Completion, target: Completion) -> torch.Tensor:
        return 1 - (completion.images - target.images).amax((1, 2, 3))


def described(plugin: Plugin, value: QualityValue) -> str:
    return f"{plugin.kind} {plugin.name} {plugin.parameters}: {value}"


def primary(agreement: np.ndarray, change: np.ndarray, curves: list[Curve]) -> str:
    expected = Expectation("agreement", "random", "fewer", at="equal quality")
    found = equal_quality(agreement, change, curves, expected.direction, seed=0)
    adjusted = holm([expected.p_of(found), equal_fraction(agreement, agreement[None], "more").p])
    power = smallest_difference(found.candidates, found.sets, spread=found.spread, tests=2)
    judgement = expected.judged(found, p=float(adjusted[0]), alpha=0.05)
    return f"{expected}: {judgement.word}, {judgement} ({found.comparable}). {power}"


def members(model: ImageARModel, tried: Candidates, out: Path) -> DatasetInference | None:
    tokens = make_targets(model, tried, model.adapter.variant.views).tokens
    signals: xr.Dataset = membership_signals(model, tried, tokens, without_class=None, batch_size=8)
    found: tuple[Membership, ...] = compare_membership(signals, seed=1)
    print(membership_files(found).items())
    print(membership_table(found), membership_table(found, against="generated"))
    audit: iarmem.Audit = iarmem.audit(model, tried.images, tried.images, rate=0.01, neurons=True)
    one: iarmem.AuditedPicture = audit.having("extracted")[0]
    told: tuple[iarmem.Peak | iarmem.VerdictCount, ...] = (*one.neurons, *audit.counts)
    limit: iarmem.VerdictThreshold = audit.thresholds[0]
    print(told, limit.threshold, audit.table(), audit.save(out))
    values: np.ndarray = signals["membership"].values
    return dataset_inference(values[:40], values[40:], seed=0, draws=100)
