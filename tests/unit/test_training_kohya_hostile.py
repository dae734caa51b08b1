"""Configurations of strangers: whatever stands where a value belongs, a person reads a sentence."""

import contextlib
import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shinymas_loha.loha.errors import LohaError
from shinymas_loha.loha.training.kohya.dataset_file import read_dataset
from shinymas_loha.loha.training.kohya.front_ends import gui, lora_scripts
from shinymas_loha.loha.training.kohya.keys import KEYS
from shinymas_loha.loha.training.kohya.run_file import read_run

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-3, 2000), st.floats(), st.sampled_from(
    ["", "none", "1", "0.5", "a=b", "--a b", "--a 'b", "algo=loha", "512,512", "\u202e\n"]))
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.sampled_from(["args", "dataset_args", "a", "algo"]), inner, max_size=2), max_leaves=6)
FRONT_ENDS = ["LoRA_type", "max_resolution", "lora_network_weights", "LyCORIS_preset", "additional_parameters",
              "lr_warmup", "optimizer", "flux1_checkbox", "use_cp", *gui._NETWORK, "lycoris_algo", "dropout",
              "network_args_custom", "optimizer_args_custom", "prodigy_d_coef", *lora_scripts._NETWORK, "warmup_ratio",
              "subsets", "datasets", "general", "general_args", "optimizer_args", "network_args", "class_type"]
FILES = st.dictionaries(st.sampled_from([*KEYS, *FRONT_ENDS]) | st.sampled_from(FRONT_ENDS), VALUES, max_size=8)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(FILES)
def test_a_stranger_s_training_configuration(tables):
    with contextlib.suppress(LohaError):
        read_run(json.dumps(tables), folder="x")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.fixed_dictionaries({"network_dim": st.just(8)}), FILES, FILES, FILES)
def test_a_stranger_s_dataset(training, general, dataset, subset):
    tables = {"general": general, "datasets": [{**dataset, "subsets": [{"image_dir": "a", **subset}]}]}
    with contextlib.suppress(LohaError):
        read_dataset(json.dumps(tables))
    with contextlib.suppress(LohaError):
        read_run(json.dumps(training), dataset=json.dumps(tables))
