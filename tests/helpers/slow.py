"""Which tests are slow, so that `make test-quick` can leave them out; and that this is true.

Slow is what trains, starts a process of Python, a browser or an archive, or computes for long. A test is marked `slow`
by hand, or because `SLOW` names it or a fixture that it uses. A test that is not marked, and trains or starts such a
process, fails.
"""

import inspect
import multiprocessing.process
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]
SLOW: dict[str, set[str]] = {
    "benchmarks/test_peers.py": {"test_kneessl_trains_and_makes_views_until_the_clock_is_done"},
    "benchmarks/test_scale.py": {"knees"},
    "evaluation/test_coverage.py": {"coverage"},
    "experiments/test_bench.py": {
        "test_a_model_whose_planes_no_exam_has_is_refused",
        "test_a_prediction_is_timed_over_whole_exams",
        "test_a_training_is_timed_and_only_json_is_printed",
        "test_nothing_is_left_behind",
        "test_the_table_says_what_was_measured",
    },
    "experiments/test_compare.py": {"compared", "test_an_interrupt_ends_the_arms_too"},
    "experiments/test_label_curve.py": {"curve"},
    "experiments/test_prevalence.py": {"trained"},
    "export/test_export.py": {
        "exams",
        "test_a_graph_that_gives_other_logits_is_refused",
        "test_conv_lstm_program_holds_for_any_number_of_slices",
        "test_exporting_twice_gives_the_same_bytes",
    },
    "finetuning/test_finetune.py": {
        "runs",
        "test_a_model_says_whether_it_was_trained_on_a_phantom",
        "test_an_mrnet_starts_from_a_run_or_a_file_with_torchvisions_names",
        "test_sslm_is_what_an_sslm_run_is_for_and_its_encoder_stays_as_it_was",
        "train",
    },
    "finetuning/test_resume.py": {"test_fine_tuning_resumes_to_the_same_model"},
    "methods/test_registry.py": {"test_every_method_trains_by_the_same_loop_into_the_same_run_folder"},
    "model/test_locked.py": {"models"},
    "nets/test_encoder.py": {"test_gradients_in_bfloat16_are_right_on_small_tiles_too"},
    "nets/test_fast_maps.py": {"test_maps_are_those_of_pytorch_in_float64"},
    "phantom/test_phantom.py": {"folder", "test_same_seed_gives_the_same_bytes_with_any_number_of_workers"},
    "pictures/test_imbalance.py": {"simclr", "test_the_supervised_arm_answers_itself_too"},
    "pictures/test_imbalance_grid.py": {"test_end_to_end_on_a_few_pictures"},
    "reader/archive/test_watch.py": {"models"},
    "reader/conftest.py": {"models", "orthanc"},
    "reader/intake/test_dicomweb.py": {"test_a_real_archive_gives_the_same_pixels"},
    "reader/intake/test_intake.py": {"test_only_an_address_needs_what_is_installed_with_the_reader"},
    "reader/web/test_page_in_browser.py": {"browser"},
    "test_cli.py": {"test_help_into_a_reader_that_leaves_ends_quietly"},
    "test_demo.py": {"ran"},
    "test_main_job.py": {
        "runs",
        "test_a_float_series_is_refused_before_a_run_begins",
        "test_its_process_ends_in_one_sentence_too",
    },
    "test_rooms.py": {"test_a_training_and_a_process_are_noticed_where_no_mark_is"},
    "test_process_tuning.py": {
        "test_a_command_imports_nothing_slow_that_it_starts_without",
        "test_freed_memory_is_there_again_without_page_faults",
        "test_lightning_does_without_torchmetrics_and_others_have_it_afterwards",
        "test_torchmetrics_that_is_there_already_stays",
    },
    "training/test_fit.py": {
        "test_a_checkpoint_that_no_disk_has_room_for_leaves_the_one_before",
        "test_the_bar_is_full_when_training_is_done",
    },
    "training/test_pretrain.py": {
        "test_a_collapsed_run_says_so_and_what_to_change",
        "test_a_queue_is_made_to_fit_the_data",
        "test_a_run_does_not_resume_on_other_data",
        "test_after_training_signals_and_memory_are_given_back",
        "test_divergence_is_said_in_a_sentence",
        "test_projections_in_few_dimensions_are_said_and_what_forbids_it",
        "test_the_target_moves_after_optimiser_steps_only",
        "test_two_draws_show_each_view_its_own_slices",
        "unbroken",
    },
    "training/test_online_probe.py": {
        "test_a_collapsed_run_says_so_in_its_record",
        "test_features_no_better_than_the_untrained_encoders_are_said",
        "test_probes_are_spread_over_the_training_and_come_last",
        "test_probing_changes_nothing_of_the_training",
    },
    "training/test_processes.py": {"test_two_processes_learn_what_one_learns"},
    "training/test_two_ranks.py": {"two"},
}
"""Slow tests, and fixtures that make each test slow which uses them, by the file that they are in."""
PROGRAMS = ("python", "Orthanc", "node", "chrom")
"""How the names of the programs begin that take long to start."""


def pytest_configure(config: pytest.Config) -> None:
    """Notice processes that are started, from now on."""
    _notice(subprocess.Popen, "__init__", _starts_long)
    _notice(multiprocessing.process.BaseProcess, "start")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Set the mark where it follows from `SLOW`, and let files with slow tests begin: one at the end is waited for.

    All test files are imported by now, so training can be noticed.
    """
    for item in items:
        if _is_slow(item):
            item.add_marker(pytest.mark.slow)
    slow_files = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow_files)
    if "lightning" in sys.modules:
        _notice(sys.modules["lightning"].Trainer, "fit")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Fail a test whose fixtures do what is slow, though it is not marked."""
    noticed.clear()
    yield
    _require_mark(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[Any]:
    """Fail a test that does what is slow, though it is not marked."""
    result = yield
    _require_mark(item)
    return result


noticed: set[str] = set()
"""What the test that runs has done that is slow."""
_watched: set[str] = set()


def _require_mark(item: pytest.Item) -> None:
    if noticed and not item.get_closest_marker("slow"):
        pytest.fail(f"not marked as slow, yet this was called: {', '.join(sorted(noticed))} (see helpers/slow.py)")


def _is_slow(item: pytest.Item) -> bool:
    definitions = item._fixtureinfo.name2fixturedefs  # pytest has no public name for where a fixture is defined
    fixtures = {name: found[-1].func for name, found in definitions.items()} | {item.originalname: item.function}
    return any(name in SLOW.get(_file_of(function), ()) for name, function in fixtures.items())


def _file_of(function: Any) -> str:
    path = Path(inspect.unwrap(function).__code__.co_filename)
    return path.relative_to(TESTS).as_posix() if path.is_relative_to(TESTS) else ""


def _starts_long(_: object, command: object, *args: object, **kwargs: object) -> bool:
    program = command[0] if isinstance(command, list | tuple) else command
    return Path(str(program)).name.startswith(PROGRAMS)


def _notice(owner: type, name: str, slow: Callable[..., bool] = lambda *args, **kwargs: True) -> None:
    """Let a method be noticed when it is called with arguments that are `slow`."""
    method, called = getattr(owner, name), f"{owner.__name__}.{name}"
    if called in _watched:
        return
    _watched.add(called)

    @wraps(method)
    def noticing(*args: Any, **kwargs: Any) -> Any:
        if slow(*args, **kwargs):
            noticed.add(called)
        return method(*args, **kwargs)

    setattr(owner, name, noticing)
