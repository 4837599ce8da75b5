"""The JAX scorer gives the rewards of the torch one, keeps its promises, and refuses what it does not compute."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from rm_assets.backends.jax import packed_rows, reward_forward
from rm_assets.backends.jax.architecture import inverse_frequencies, read_architecture
from rm_assets.backends.jax.checkpoints import load_parameters
from rm_assets.backends.jax.devices import make_mesh, platform
from rm_assets.backends.jax.reward_forward import rewards
from rm_assets.backends.jax.scorer import JaxScorer
from rm_assets.backends.tokenization import load_config, load_renderer
from rm_assets.backends.torch.scorer import TorchScorer
from rm_assets.core.errors import ModelError, RecipeError
from rm_assets.core.recipe import ExecutionSection, JaxMesh, ModelRef
from rm_assets.core.records import Messages, conversation
from rm_assets_tests.backends.jax.conftest import SHAPES
from rm_assets_tests.fakes import ListReporter, in_float64, save_causal, save_classifier, save_encoder

torch.set_num_threads(1)
ON_CPU = make_mesh(ExecutionSection(device="cpu"))
ANSWERS = ["yes", "two pears please", "no", "fine two apples " * 9, "yes two"]
CONVERSATIONS: list[Messages] = [
    conversation(f"make {prompt} pies", "be good" if prompt % 2 else None, f"{text} {prompt}")
    for text in ANSWERS for prompt in range(4)
]  # fmt: skip


def make_scorer(model: Path, **changes: Any) -> JaxScorer:
    options: dict[str, Any] = {
        "max_length": 200, "dtype": "float32", "mesh": ON_CPU, "token_budget": 1024,
        "reporter": ListReporter(), **changes,
    }  # fmt: skip
    return JaxScorer(ModelRef(path=str(model)), **options)


@pytest.mark.parametrize(
    ("dtype", "within"), [("float32", 1e-5), pytest.param("bfloat16", 0.1, marks=pytest.mark.slow)]
)
def test_scores_are_those_of_torch(model: Path, dtype: Any, within: float) -> None:
    settings: dict[str, Any] = {"max_length": 60, "dtype": dtype, "token_budget": 1024, "reporter": ListReporter()}
    with_torch = TorchScorer(ModelRef(path=str(model)), device=torch.device("cpu"), **settings)
    expected, found = list(with_torch.score(CONVERSATIONS)), list(make_scorer(model, **settings).score(CONVERSATIONS))
    assert [s.reward for s in found] == pytest.approx([s.reward for s in expected], abs=within)
    assert [(s.num_tokens, s.truncated) for s in found] == [(s.num_tokens, s.truncated) for s in expected]
    assert sum(s.truncated for s in found) == 4 and np.std([s.reward for s in expected]) > 0.3


def test_rewards_in_float64_are_those_of_transformers(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts are shared, rows padded and attention is cut into blocks here; transformers gets one conversation at a time."""
    monkeypatch.setattr(reward_forward, "QUERIES_AT_A_TIME", 64)
    ref = ModelRef(path=str(model))
    rows = load_renderer(ref).encode(CONVERSATIONS)
    plain = in_float64(AutoModelForSequenceClassification.from_pretrained(model))
    with torch.no_grad():
        expected = [plain(torch.tensor([row.ids])).logits.item() for row in rows]
    groups = [rows[prompt::4] for prompt in range(4)]
    config = load_config(ref)
    architecture = read_architecture(ref, config)
    with jax.enable_x64(True):
        parameters = load_parameters(
            ref, config, architecture, dtype=jnp.float64, mesh=ON_CPU
        )  # fmt: skip
        compute = jax.jit(partial(rewards, architecture=architecture, dtype=jnp.float64, mesh=ON_CPU))
        found = {}
        for batch in packed_rows.batches(groups, 512):
            packed = packed_rows.pack(groups, batch, 0)
            at_tokens = np.asarray(compute(parameters, packed.tokens)).ravel()
            members = [place for row in batch.rows for place in row]
            found |= {place: at_tokens[ends] for place, ends in zip(members, packed.ends, strict=True)}
    largest = max(abs(found[prompt] - expected[prompt::4]).max() for prompt in range(4))
    assert largest < 1e-8 and np.std(expected) > 0.1


def test_a_score_is_the_same_alone_and_in_a_batch_and_in_any_order(tmp_path: Path) -> None:
    reporter = ListReporter()
    scorer = make_scorer(save_classifier(tmp_path, "llama"), reporter=reporter)
    together = [s.reward for s in scorer.score(CONVERSATIONS)]
    assert reporter.progresses[-1] == (20, 20, "conversations")
    alone = [s.reward for row in CONVERSATIONS[:4] for s in scorer.score([row])]
    assert together[:4] == pytest.approx(alone, abs=1e-5)
    backwards = [s.reward for s in scorer.score(CONVERSATIONS[::-1])]
    assert together == pytest.approx(backwards[::-1], abs=1e-5)


def test_a_window_without_memory_is_scored_again_in_smaller_parts(tmp_path: Path) -> None:
    model, reporter = save_classifier(tmp_path), ListReporter()
    whole, scorer = make_scorer(model), make_scorer(model, reporter=reporter)
    expected, real, calls = [s.reward for s in whole.score(CONVERSATIONS)], scorer._rewards_at_tokens, list[int]()

    class FailsOnce:
        _cache_size = real._cache_size

        def __call__(self, parameters: Any, tokens: Any) -> Any:
            calls.append(tokens.ids.size)
            if len(calls) == 1:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
            return real(parameters, tokens)

    scorer._rewards_at_tokens = FailsOnce()
    assert [s.reward for s in scorer.score(CONVERSATIONS)] == pytest.approx(expected, abs=1e-5)
    assert scorer.facts == {"token_budget_halved_to": 512} and max(calls[1:]) <= 512 < calls[0]
    assert scorer.num_tokens_forwarded == sum(calls[1:])


def test_any_number_of_conversations_compiles_a_few_times(tmp_path: Path) -> None:
    scorer = make_scorer(save_classifier(tmp_path), token_budget=1024)
    for number in range(1, 30, 2):
        texts = ["yes " * (1 + (7 * i + number) % 40) for i in range(number)]
        list(scorer.score(conversation(f"make {text}", None, text) for text in texts))
    # 1, 2 or 4 rows of 256 tokens, 1 or 2 of 512, one of 1,024
    assert packed_rows.most_shapes(1024, 1024) == 6
    assert 1 < scorer.num_compilations <= 3


def test_a_shared_prompt_is_computed_once(tmp_path: Path) -> None:
    """Ten answers of 20 tokens to a prompt of 100 have room in two rows of 256; without sharing they would take five."""
    scorer = make_scorer(save_classifier(tmp_path))
    prompt = "make two pies please " * 6
    list(scorer.score(conversation(prompt, None, f"{number} good apples") for number in range(10)))
    num_tokens = sum(scorer.num_tokens(conversation(prompt, None, f"{number} good apples")) for number in range(10))
    assert scorer.num_tokens_forwarded <= 512 < num_tokens


def test_weights_spread_over_files_are_read_through_their_index(tmp_path: Path) -> None:
    model = save_classifier(tmp_path / "whole")
    whole = AutoModelForSequenceClassification.from_pretrained(model)
    shutil.copytree(model, tmp_path / "cut")
    (tmp_path / "cut" / "model.safetensors").unlink()
    whole.save_pretrained(tmp_path / "cut", max_shard_size="8KB")
    assert len(list((tmp_path / "cut").glob("*.safetensors"))) > 1
    one, other = (list(make_scorer(folder).score(CONVERSATIONS[:3])) for folder in (model, tmp_path / "cut"))
    assert one == other


def test_weights_in_bfloat16_are_read_as_they_are(tmp_path: Path) -> None:
    """As released models have them."""
    ref = ModelRef(path=str(save_classifier(tmp_path)))
    weights = {name: w.bfloat16() for name, w in load_file(tmp_path / "model.safetensors").items()}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = load_config(ref)
    found = load_parameters(ref, config, read_architecture(ref, config), dtype=jnp.float32, mesh=ON_CPU)
    name = "self_attn.q_proj.weight"
    expected = torch.stack([weights[f"model.layers.{number}.{name}"] for number in range(2)]).float().numpy()
    assert (np.asarray(found["layers"][name]) == expected).all()


def test_biases_are_computed(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, "llama", attention_bias=True, mlp_bias=True)
    weights = load_file(folder / "model.safetensors")
    weights = {name: torch.randn_like(w) if name.endswith("bias") else w for name, w in weights.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    settings: dict[str, Any] = {"max_length": 200, "dtype": "float32", "token_budget": 256, "reporter": ListReporter()}
    with_torch = TorchScorer(ModelRef(path=str(folder)), device=torch.device("cpu"), **settings)
    found, expected = (list(s.score(CONVERSATIONS[:4])) for s in (make_scorer(folder, **settings), with_torch))
    assert [s.reward for s in found] == pytest.approx([s.reward for s in expected], abs=1e-5)


@pytest.mark.parametrize("head_dim", [8, 64, 128])
@pytest.mark.parametrize("shape", ["llama-3.1", "smollm2"])
def test_frequencies_are_those_of_transformers(shape: str, head_dim: int) -> None:
    rope = SHAPES[shape]["rope_parameters"]
    config = AutoConfig.for_model("llama", head_dim=head_dim, rope_parameters=rope)
    if shape == "llama-3.1":
        expected = ROPE_INIT_FUNCTIONS["llama3"](config)[0]
    else:
        expected = 1.0 / (rope["rope_theta"] ** (torch.arange(0, head_dim, 2).float() / head_dim))
    np.testing.assert_allclose(inverse_frequencies(rope, head_dim), expected.numpy(), rtol=3e-7)


def test_a_reward_that_is_not_finite_names_its_row(tmp_path: Path) -> None:
    model = save_classifier(tmp_path)
    weights = load_file(model / "model.safetensors")
    weights["score.weight"][0, 0] = torch.nan
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"MODEL_006.*conversation 0"):
        list(make_scorer(model).score(CONVERSATIONS[:1]))


def test_a_prompt_that_fills_max_length_is_an_error(tmp_path: Path) -> None:
    scorer = make_scorer(save_classifier(tmp_path), max_length=20)
    with pytest.raises(ModelError, match=r"MODEL_005.*two pears"):
        list(scorer.score([conversation("two pears please " * 20, None, "yes")]))


def test_the_identity_names_the_backend(tmp_path: Path) -> None:
    identity = make_scorer(save_classifier(tmp_path)).identity
    assert (identity["backend"], identity["jax"], identity["dtype"]) == ("jax", jax.__version__, "float32")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "mistral"}, "model type is mistral"),
        ({"hidden_act": "gelu"}, "activation is gelu"),
        ({"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 0}, "sliding window"),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}, "rope scaling is linear"),
        ({"quantization_config": {"quant_method": "fp8"}}, "weights are quantized"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    model = save_classifier(tmp_path)
    config = json.loads((model / "config.json").read_text("utf-8"))
    config.pop("layer_types", None)
    (model / "config.json").write_text(json.dumps(config | changes), "utf-8")
    with pytest.raises(ModelError, match=rf"MODEL_002.*JAX.*{said}"):
        make_scorer(model)


def test_encoders_and_models_without_a_trained_head_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"MODEL_002.*model type is distilbert"):
        make_scorer(save_encoder(tmp_path / "encoder", classifier=True))
    with pytest.raises(ModelError, match=r"MODEL_002.*Qwen3ForCausalLM, which gives no reward"):
        make_scorer(save_causal(tmp_path / "causal"))
    headless = save_classifier(tmp_path / "headless")
    weights = load_file(headless / "model.safetensors")
    del weights["score.weight"]
    save_file(weights, headless / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"MODEL_002.*no weights for score.weight of Qwen3ForSequence"):
        make_scorer(headless)


def test_a_device_that_is_not_there_is_named() -> None:
    assert (platform(ON_CPU), dict(ON_CPU.shape)) == ("cpu", {"data": 1, "fsdp": 1})
    with pytest.raises(RecipeError, match=r"RECIPE_003.*'mps'"):
        make_mesh(ExecutionSection(device="mps"))
    with pytest.raises(RecipeError, match=r"RECIPE_003.*2 x 3 devices, but JAX sees 1: cpu"):
        make_mesh(ExecutionSection(jax_mesh=JaxMesh(data=2, fsdp=3)))
