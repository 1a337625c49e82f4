import csv
import json
import pickle
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy.special import expit

import kneessl.finetuning.finetune as module
from kneessl.cli import run
from kneessl.errors import UserError
from kneessl.evaluate.evaluate import evaluate
from kneessl.evaluation.familiarity import Gaussian
from kneessl.evaluation.stacking import Stack
from kneessl.exams.folder import ExamFolder, write_labels, write_series
from kneessl.finetuning.finetune import finetune
from kneessl.model.crossfit import OutOfFold
from kneessl.model.fuse import fuse
from kneessl.model.labels import UNKNOWN
from kneessl.model.locked import decide_on, digest_of, read_decisions
from kneessl.model.model import load_model, load_plane
from kneessl.model.predict import forward_pass, plane_logits, predict_split
from kneessl.sources.importer import import_exams

SETTINGS = {"size": 32, "slices": 2, "epochs": 1, "batch": 4, "precision": "float32", "folds": 2, "lr": 1e-3}


@pytest.fixture(scope="module")
def planes(knees, tmp_path_factory):
    """The `knees` in two planes: coronal is missing in two exams; a second task is not labelled everywhere."""
    root = tmp_path_factory.mktemp("planes") / "knees"
    shutil.copytree(knees, root)
    folder = ExamFolder(root)
    for split, left_out in (("train", "0003"), ("valid", "0014")):
        for exam in folder.exams(split, "sagittal"):
            if exam != left_out:
                series = np.array(folder.series(split, "sagittal", exam))
                write_series(root, split, "coronal", exam, series[:, ::-1].copy())
        labels = folder.labels(split, "acl")
        write_labels(root, split, "odd", {e: int(i % 4 < 2) for i, e in enumerate(sorted(labels)) if i != 1})
    return root


@pytest.fixture(scope="module")
def models(planes, tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    for plane in ("sagittal", "coronal"):
        finetune(planes, ["acl", "odd"], root / plane, plane=plane, **SETTINGS)
    run("fuse", [f"[{root / 'sagittal'},{root / 'coronal'}]", "--out", str(root / "fused")])
    return root


def test_out_of_fold_logits_are_of_models_that_have_not_seen_the_exam(models, planes):
    seen, folder = OutOfFold.read(models / "sagittal" / "out_of_fold.csv"), ExamFolder(planes)
    assert seen.exams == folder.exams("train", "sagittal")
    assert sorted(np.bincount(seen.fold)) == [6, 6]
    for k in (0, 1):
        own = [exam for exam, fold in zip(seen.exams, seen.fold, strict=True) if fold == k]
        run = models / "sagittal" / "folds" / str(k)
        assert not set(json.loads((run / "run.json").read_text())["labelled_exams"]) & set(own)
        expected = plane_logits(load_plane(run), folder, "train", own, "fold")
        assert np.array_equal(seen.logits[seen.fold == k], expected)
    assert json.loads((models / "sagittal" / "run.json").read_text())["exams"] == 12, "the model itself sees all"
    assert (seen.truth[:, 1] == UNKNOWN).sum() == 1


def test_what_is_locked_follows_from_the_out_of_fold_predictions_alone(models):
    run = models / "coronal"
    seen, locked = OutOfFold.read(run / "out_of_fold.csv"), read_decisions(run)
    for k, task in enumerate(("acl", "odd")):
        known = seen.truth[:, k] != UNKNOWN
        assert locked.decisions[task]["coronal"] == decide_on(seen.truth[known, k], seen.logits[known, k])
    assert locked.stacks == {}


def features_of(run, folder, plane, exams):
    model = load_plane(run)
    return np.stack([forward_pass(model, folder.series("train", plane, exam)).features for exam in exams])


def test_familiarity_is_of_exams_that_neither_network_nor_gaussian_has_seen(models, planes):
    for plane in ("sagittal", "coronal"):
        run, folder = models / plane, ExamFolder(planes)
        table = OutOfFold.read(run / "out_of_fold.csv")
        exams, fold = np.array(table.exams), table.fold
        found, expected = load_plane(run).familiarity, np.empty(len(exams))
        for k in (0, 1):
            features = features_of(run / "folds" / str(k), folder, plane, exams)
            expected[fold == k] = Gaussian.fit(features[fold != k]).distances(features[fold == k])
        np.testing.assert_allclose(found.reference, expected, rtol=1e-6)
        own = Gaussian.fit(features_of(run, folder, plane, exams))
        unseen = np.random.default_rng(0).lognormal(size=(3, 512))
        np.testing.assert_allclose(found.gaussian.distances(unseen), own.distances(unseen), rtol=1e-6)
        assert all(found.p_value(x) == 1 / (len(exams) + 1) and found.unfamiliar(found.p_value(x)) for x in unseen)
        assert load_model(models / "fused").planes[plane].familiarity.p_value(unseen[0]) == found.p_value(unseen[0])
        assert load_plane(run / "folds" / "0").familiarity is None


def test_familiarity_is_locked_with_the_weights(models, tmp_path):
    locked = json.loads((models / "fused" / "decisions.json").read_text())["weights"]
    names = ("familiarity.safetensors", "model.safetensors")
    assert sorted(locked) == sorted(f"{plane}/{name}" for plane in ("coronal", "sagittal") for name in names)
    for name in ("sagittal", "fused"):
        for change in ("changed", "missing", "damaged"):
            copy = tmp_path / f"{name} {change}"
            shutil.copytree(models / name, copy)
            path = next(iter(sorted(copy.glob("**/familiarity.safetensors"))))
            if change == "changed":
                arrays = load_file(path)
                save_file(arrays | {"reference_distances": arrays["reference_distances"] + 100}, path)
            else:
                path.unlink() if change == "missing" else path.write_bytes(path.read_bytes()[:-1])
            message = r"familiarity\.safetensors is damaged" if change == "damaged" else "have changed since"
            with pytest.raises(UserError, match=message):
                load_model(copy)
    odd = tmp_path / "odd"
    shutil.copytree(models / "sagittal", odd)
    save_file({"mean": np.zeros(512)}, odd / "familiarity.safetensors")
    with pytest.raises(UserError, match="a familiarity consists of"):
        load_model(odd)


def test_a_model_of_an_older_version_is_still_read_and_has_no_intervals(models, planes, tmp_path):
    shutil.copytree(models / "sagittal", tmp_path / "old")
    (tmp_path / "old" / "familiarity.safetensors").unlink()
    content = json.loads((tmp_path / "old" / "decisions.json").read_text())
    del content["sha256"], content["weights"]["familiarity.safetensors"]
    for sets in content["decisions"].values():
        for decision in sets.values():
            del decision["recalibration"]["covariance"]
    (tmp_path / "old" / "decisions.json").write_text(json.dumps(content | {"sha256": digest_of(content)}))
    record = json.loads((tmp_path / "old" / "run.json").read_text())
    assert record.pop("synthetic") is False
    (tmp_path / "old" / "run.json").write_text(json.dumps(record))
    old, new = load_model(tmp_path / "old"), load_model(models / "sagittal")
    assert old.planes["sagittal"].familiarity is None
    assert (old.synthetic, new.synthetic) == (None, False)
    assert (old.sha256, new.sha256) == (digest_of(content), new.decisions.sha256)
    folder = ExamFolder(planes)
    before, after = (predict_split(model, folder, "valid", ["0012", "0013"], "x")["acl"] for model in (old, new))
    assert np.array_equal(before.probabilities, after.probabilities)
    assert before.intervals == [None, None]
    for (low, high), probability in zip(after.intervals, after.probabilities, strict=True):
        assert 0 < low < probability < high < 1
    assert after.rows([1]).intervals == after.intervals[1:]


def test_the_test_labels_change_no_stored_choice(planes, models, tmp_path):
    """The same training beside shuffled labels of `valid`: every stored byte is the same; and evaluating adds none."""
    other = tmp_path / "knees"
    shutil.copytree(planes, other)
    for task in ("acl", "odd"):
        labels = ExamFolder(planes).labels("valid", task)
        values = np.random.default_rng(4).permutation(list(labels.values())).tolist()
        assert values != list(labels.values())
        write_labels(other, "valid", task, dict(zip(labels, values, strict=True)))
    for plane in ("sagittal", "coronal"):
        finetune(other, ["acl", "odd"], tmp_path / plane, plane=plane, **SETTINGS)
    fuse([tmp_path / "sagittal", tmp_path / "coronal"], tmp_path / "fused")

    def choices(root):
        names = ("model.safetensors", "familiarity.safetensors", "decisions.json", "out_of_fold.csv")
        return {p.relative_to(root): p.read_bytes() for name in names for p in sorted(root.rglob(name))}

    shuffled, before = choices(tmp_path), choices(models)
    assert shuffled == before
    assert len(before) == 21
    for name in ("sagittal", "fused"):
        evaluate(tmp_path / name, other, out=tmp_path / f"{name} evaluated")
        evaluate(tmp_path / name, other)
    assert choices(tmp_path) == before


def test_a_change_of_decisions_or_weights_is_noticed(models, tmp_path):
    for name, change in (
        ("decisions.json", lambda text: text.replace('"target_sensitivity": 0.95', '"target_sensitivity": 0.94')),
        ("decisions.json", lambda text: text.replace('"slope": ', '"slope": 1')),
        ("decisions.json", lambda text: text[:-9]),
        ("decisions.json", lambda text: "[]"),
        ("decisions.json", lambda text: text.replace('"slope"', '"tilt"')),
    ):
        copy = tmp_path / "copy"
        shutil.copytree(models / "fused", copy)
        path = copy / name
        changed = change(path.read_text())
        assert changed != path.read_text()
        path.write_text(changed)
        with pytest.raises(UserError, match=r"decisions\.json"):
            load_model(copy)
        shutil.rmtree(copy)
    shutil.copytree(models / "fused", tmp_path / "other")
    fold = models / "coronal" / "folds" / "0" / "model.safetensors"
    shutil.copyfile(fold, tmp_path / "other" / "coronal" / "model.safetensors")
    with pytest.raises(UserError, match="have changed since"):
        load_model(tmp_path / "other")


@pytest.mark.parametrize(
    "changes", [{"tasks": ["odd", "acl"]}, {"tasks": ["acl", "mcl"]}, {"plane": "axial"}, {"tasks": ["acl", -1]}]
)
@pytest.mark.parametrize("name", ["sagittal", "fused"])
def test_a_record_that_names_other_tasks_or_another_plane_than_was_locked_is_refused(models, tmp_path, name, changes):
    shutil.copytree(models / name, tmp_path / "model")
    if name == "fused" and "plane" in changes:
        (tmp_path / "model" / "coronal").rename(tmp_path / "model" / "axial")
    for path in (tmp_path / "model").glob("**/run.json"):
        record = json.loads(path.read_text())
        if record["kind"] == "finetune" and "folds" not in path.parts:
            path.write_text(json.dumps(record | changes))
    with pytest.raises(UserError, match=r"decisions\.json"):
        load_model(tmp_path / "model")


def test_a_fused_model_answers_from_the_planes_that_are_there(models, planes):
    folder, model = ExamFolder(planes), load_model(models / "fused")
    exams = folder.exams("valid", "sagittal")
    answers = predict_split(model, folder, "valid", exams, "both")["acl"]
    assert [key for key in answers.planes if key != "coronal+sagittal"] == ["sagittal"]
    alone = exams.index("0014")
    assert answers.planes[alone] == "sagittal"
    decisions, stack = model.decisions.decisions["acl"], model.decisions.stacks["acl"]
    own = {p: plane_logits(m, folder, "valid", exams, p)[:, 0] for p, m in model.planes.items()}
    assert np.isnan(own["coronal"][alone])
    for i, exam in enumerate(exams):
        fusion = stack.fusions[answers.planes[i]]
        logit = fusion.intercept + sum(w * own[plane][i] for plane, w in fusion.weights.items())
        decision = decisions[answers.planes[i]]
        r = decision.recalibration
        assert answers.logits[i] == pytest.approx(logit), exam
        assert answers.probabilities[i] == pytest.approx(expit(r.slope * logit + r.intercept))
        assert answers.states[i] == decision.points.state(answers.probabilities[i])
        assert answers.intervals[i] == pytest.approx(r.interval(logit))
    only = predict_split(model, folder, "valid", exams, "one", ["coronal"])["acl"]
    assert np.isnan(only.probabilities[alone])
    assert only.states[alone] is only.intervals[alone] is None
    assert set(only.planes) == {"coronal", ""}


def test_fusion_is_judged_on_exams_that_it_has_not_seen(models):
    """Operating points of the fused model come from stacks fitted without the fold that they are asked about."""
    tables = {p: OutOfFold.read(models / "fused" / p / "out_of_fold.csv") for p in ("coronal", "sagittal")}
    exams = tables["sagittal"].exams
    labels, of = {}, {}
    logits = {p: np.full(len(exams), np.nan) for p in tables}
    first, second = json.loads((models / "fused" / "run.json").read_text())["planes"]
    for p in (first, second):
        for i, exam in enumerate(tables[p].exams):
            of.setdefault(exam, tables[p].fold[i])
            logits[p][exams.index(exam)] = tables[p].logits[i, 0]
            labels[exam] = tables[p].truth[i, 0]
    folds, y = np.array([of[e] for e in exams]), np.array([labels[e] for e in exams])
    fused = np.full(len(exams), np.nan)
    both = ~np.isnan(logits["coronal"])
    for k in (0, 1):
        stack = Stack.fit({p: v[folds != k] for p, v in logits.items()}, y[folds != k])
        here = (folds == k) & both
        fused[here] = stack.apply({p: v[here] for p, v in logits.items()})
    expected = decide_on(y[both], fused[both])
    assert read_decisions(models / "fused").decisions["acl"]["coronal+sagittal"] == expected


def test_a_fused_folder_needs_nothing_else(models, planes, tmp_path):
    shutil.copytree(models / "fused", tmp_path / "moved")
    evaluate(tmp_path / "moved", planes, task="acl")
    result = json.loads((tmp_path / "moved" / "result.json").read_text())["moved"]["acl"]
    assert result["n"] == 8
    assert result["decisions_sha256"] == read_decisions(models / "fused").sha256
    assert result["states"] is None, "not all exams were answered from the same planes"
    evaluate(models / "sagittal", planes, task="acl", out=tmp_path / "one")
    states = json.loads((tmp_path / "one" / "result.json").read_text())["sagittal"]["acl"]["states"]
    assert sum(states["positive"].values()) == sum(states["negative"].values()) == 4


def test_what_cannot_be_fused_is_refused_in_a_sentence(models, planes, tmp_path):
    finetune(planes, "acl", tmp_path / "axial", plane="coronal", **(SETTINGS | {"folds": 0}))
    for runs, message in (
        ([models / "sagittal", models / "sagittal"], "different planes"),
        ([models / "sagittal"], "two or three"),
        ([models / "sagittal", tmp_path / "axial"], "different tasks"),
        ([models / "sagittal", models / "nowhere"], "not a run folder"),
        ([models / "fused", models / "sagittal"], "not a fine-tuned model"),
    ):
        with pytest.raises(UserError, match=message):
            fuse(runs, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    shutil.copytree(models / "coronal", tmp_path / "without")
    (tmp_path / "without" / "out_of_fold.csv").unlink()
    with pytest.raises(UserError, match="--folds"):
        fuse([models / "sagittal", tmp_path / "without"], tmp_path / "out")


def test_out_of_fold_files_come_back_as_they_were_and_damaged_ones_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    table = OutOfFold(
        ["a", "b, c"], ["x", "y", "z"], np.array([0, 1, 0]), rng.integers(-1, 2, (3, 2)), rng.normal(size=(3, 2))
    )
    path = tmp_path / "o.csv"
    table.write(path)
    back = OutOfFold.read(path)
    assert (list(back.tasks), list(back.exams)) == (table.tasks, table.exams)
    for name in ("fold", "truth", "logits"):
        assert np.array_equal(getattr(back, name), getattr(table, name))
    text = path.read_text()
    for damaged in (
        "",
        text[: text.rindex(",")],
        text.replace("x,0,a", "y,0,a"),
        text.replace("logit", "score"),
        text + "q,1,a,1,0.5\n",
    ):
        path.write_text(damaged)
        with pytest.raises(UserError, match="damaged"):
            OutOfFold.read(path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folds": 1}, "folds is 1"),
        ({"folds": -2}, "folds is -2"),
        ({"folds": 40}, "folds"),
        ({"task": []}, "name one"),
        ({"task": ["acl", "acl"]}, "several different"),
        ({"task": ["acl", "odd"], "balance": "oversample"}, "take --balance weights"),
        ({"task": ["acl", "knee"]}, "train-knee.csv is missing"),
        ({"frozen": True, "head": "attention"}, "no linear layer"),
        ({"layer_decay": 1.5}, "layer_decay is 1.5"),
        ({"ema": 1.0}, "ema is 1.0"),
        ({"focal": -1.0}, "focal is -1.0"),
        (
            {"network": "mrnet_alexnet", "layer_decay": 0.5, "size": 64, "batch": 1, "slices": None},
            "stages of a ResNet",
        ),
    ],
)
def test_wrong_settings_end_before_anything_is_written(planes, tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        finetune(**({"data": planes, "task": "acl", "out": tmp_path / "out"} | SETTINGS | settings))
    assert not (tmp_path / "out").exists()


def test_training_with_folds_goes_on_where_it_stopped(planes, models, tmp_path, monkeypatch):
    done = []
    train = module.train

    def stop_at_third(*args):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(args[3])
        train(*args)

    with monkeypatch.context() as patch:
        patch.setattr(module, "train", stop_at_third)
        with pytest.raises(KeyboardInterrupt):
            finetune(planes, ["acl", "odd"], tmp_path / "m", plane="sagittal", **SETTINGS)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "m").rglob("model.safetensors")}
    assert len(times) == 2
    finetune(planes, ["acl", "odd"], tmp_path / "m", plane="sagittal", **SETTINGS, resume=True)
    assert all(path.stat().st_mtime_ns == before for path, before in times.items())
    for name in ("model.safetensors", "familiarity.safetensors", "decisions.json", "out_of_fold.csv"):
        assert (tmp_path / "m" / name).read_bytes() == (models / "sagittal" / name).read_bytes()


@pytest.mark.usefixtures("no_reports")
def test_predictions_name_their_task(models, planes, tmp_path):
    evaluate(models / "coronal", planes, against=models / "fused", out=tmp_path / "both")
    with (tmp_path / "both" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["exam", "task", "label", "coronal", "fused"]
    assert {row["task"] for row in rows} == {"acl", "odd"}
    assert "0014" not in {row["exam"] for row in rows}, "coronal has no answer for it, so both are judged without"


def test_a_locked_model_is_tested_on_kneemri_without_retraining(models, tmp_path):
    """The external test: pickles of Rijeka's layout -> test split -> figures at operating points set elsewhere."""
    source, rng = tmp_path / "kneeMRI", np.random.default_rng(0)
    lines = ["examId,seriesNo,aclDiagnosis,kneeLR,roiX,roiY,roiZ,roiHeight,roiWidth,roiDepth,volumeFilename"]
    for i in range(9):
        folder = source / ("vol01" if i < 4 else "vol02" if i < 8 else "vol03")
        folder.mkdir(parents=True, exist_ok=True)
        volume = rng.integers(0, 4096, (6, 320, 320), dtype=np.uint16)
        (folder / f"{700 + i}-8.pck").write_bytes(pickle.dumps(volume))
        lines.append(f"{700 + i},8,{i % 3},1,10,10,2,90,90,3,{700 + i}-8.pck")
    (source / "metadata.csv").write_text("\n".join(lines) + "\n")
    import_exams(source, tmp_path / "rijeka")
    locked = {p: p.read_bytes() for p in sorted((models / "sagittal").rglob("*")) if p.is_file()}
    evaluate(models / "sagittal", tmp_path / "rijeka", split="test", out=tmp_path / "out")
    assert {p: p.read_bytes() for p in sorted((models / "sagittal").rglob("*")) if p.is_file()} == locked
    result = json.loads((tmp_path / "out" / "result.json").read_text())["sagittal"]
    assert list(result) == ["acl"], "the model's other task has no labels there"
    assert (result["acl"]["n"], result["acl"]["positives"]) == (8, 5)
    points = read_decisions(models / "sagittal").decisions["acl"]["sagittal"].points
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        said = [points.state(float(row["sagittal"])) for row in csv.DictReader(file) if row["label"] == "1"]
    assert result["acl"]["states"]["positive"] == {state: said.count(state) for state in ("yes", "doubt", "no")}
    assert "External testing" in (tmp_path / "out" / "report.html").read_text()
