"""The verdict on each hostile or malformed file, as far as the file alone decides it.

The rows that need a model's shapes (9, 16, 22 to 30, 33) are in test_binding.
"""

import os
import pickle
import socket
import threading
import time
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shinymas_loha.loha import report
from shinymas_loha.loha.binding import bind
from shinymas_loha.loha.errors import FileError
from shinymas_loha.loha.files import read, resolve_name, save, tensor_name
from shinymas_loha.loha.module import Loha
from shinymas_loha.tests.unit.files_helpers import described, file_bytes, flat, packed, tucker, without

INF, NAN = float("inf"), float("nan")


def _poisoned(tensors, name, value):
    spoilt = tensors[name].float().clone()
    spoilt.view(-1)[-1] = value
    return tensors | {name: spoilt.to(tensors[name].dtype)}


def _duplicate() -> bytes:
    header = file_bytes(flat())[8:].split(b"}}")[0] + b"}}"
    return packed(header.replace(b"m.hada_w2_b", b"m.hada_w1_b"), file_bytes(flat())[8 + len(header):])


def _tiny(count: int) -> bytes:
    return packed({f"t{i}.alpha": described("F16", [], 2 * i, 2 * i + 2) for i in range(count)}, b"\0" * 2 * count)


def _pickled() -> bytes:
    return pickle.dumps({"weights": list(range(300))}, protocol=2)


def _row(value) -> str:
    return f"row{value}" if type(value) is int else ""


GOOD = file_bytes(flat())

REJECTED = [
    (1, file_bytes(without(flat(), "m.hada_w1_b")), ["module 'm'", "hada_w1_b missing", "found only"]),
    (2, file_bytes(without(flat(), "m.hada_w2_a")), ["module 'm'", "hada_w2_a missing"]),
    (2, file_bytes(without(flat(), "m.hada_w2_b")), ["module 'm'", "hada_w2_b missing"]),
    (3, file_bytes(without(tucker(), "m.hada_t2")), ["module 'm'", "hada_t2 missing"]),
    (3, file_bytes(without(tucker(), "m.hada_t1")), ["module 'm'", "hada_t1 missing"]),
    (4, file_bytes(flat() | {"m.hada_w1_a": torch.ones(6, 3)}),
     ["hada_w1_a (6, 3)", "hada_w1_b (2, 5)", "rank 3 against 2"]),
    (4, file_bytes(tucker() | {"m.hada_w2_a": torch.ones(3, 6)}), ["hada_w2_a (3, 6)", "rank 3 against 2"]),
    (4, file_bytes(flat() | {"m.hada_w2_a": torch.ones(7, 2)}), ["products differ", "(6, 5) against (7, 5)"]),
    (6, file_bytes(flat(rank=2) | {"m.hada_w1_a": torch.ones(6, 0)}), ["'m.hada_w1_a'", "empty", "[6, 0]"]),
    (8, file_bytes(flat(alpha=NAN)), ["module 'm'", "alpha is nan", "finite"]),
    (8, file_bytes(flat(alpha=INF)), ["alpha is inf"]),
    (8, file_bytes(flat(alpha=-INF)), ["alpha is -inf"]),
    (12, file_bytes(flat(alpha=torch.ones(2))), ["module 'm'", "alpha has shape (2,)", "single number"]),
    (14, file_bytes(_poisoned(flat(), "m.hada_w2_b", NAN)), ["'m.hada_w2_b'", "NaN or infinity", "earlier epoch"]),
    (14, file_bytes(_poisoned(tucker(), "m.hada_t1", NAN)), ["'m.hada_t1'", "NaN or infinity"]),
    (14, file_bytes(flat() | {"m.dora_scale": torch.full((6, 1), NAN)}), ["'m.dora_scale'", "NaN or infinity"]),
    (15, file_bytes(_poisoned(flat(), "m.hada_w1_a", INF)), ["'m.hada_w1_a'", "NaN or infinity"]),
    (17, file_bytes(flat() | {"m.hada_w1_a": torch.ones(6, 2, dtype=torch.int8)}),
     ["module 'm'", "hada_w1_a is int8", "floating-point"]),
    (20, packed({"m.hada_w1_a": described("F4", [6, 2], 0, 6)}, b"\0" * 6), ["'m.hada_w1_a'", "dtype F4"]),
    (20, file_bytes(flat(dtype=torch.complex64)), ["hada_w1_a is complex64"]),
    (20, file_bytes(flat(dtype=torch.bool)), ["hada_w1_a is bool"]),
    (21, file_bytes(tucker() | {"m.hada_t1": torch.ones(2, 3, 3, 3)}),
     ["hada_t1 has shape (2, 3, 3, 3)", "expected (2, 2,"]),
    (21, file_bytes(tucker() | {"m.hada_t2": torch.ones(2, 2)}), ["hada_t2 has shape (2, 2)"]),
    (21, file_bytes(tucker() | {"m.hada_t2": torch.ones(2, 2, 1, 3)}), ["(6, 5, 3, 3) against (6, 5, 1, 3)"]),
    (34, file_bytes(flat() | {"x.diff": torch.ones(0)}), ["'x.diff'", "empty", "[0]"]),
    (35, b"", ["is empty", "download it again"]),
    (35, packed({}), ["holds no tensors"]),
    (35, packed({"__metadata__": {"a": "b"}}), ["holds no tensors"]),
    (36, _pickled(), ["looks like a Python pickle", "never load a pickle"]),
    (36, b"\n<!DOCTYPE html>\n<html><body>Log in</body></html>", ["looks like a web page", "logged in"]),
    (36, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 43\n", ["git-LFS pointer", "git lfs pull"]),
    (36, b'{"error": "not found"}', ["looks like JSON text"]),
    (36, b"Entry not found", ["looks like a text file"]),
    (36, b"\x89PNG\r\n\x1a\n" + b"\0" * 64, ["looks like a PNG picture", "not its preview"]),
    (36, b"GGUF" + b"\0" * 64, ["looks like a GGUF model"]),
    (36, b"\0" * 600, ["only zero bytes"]),
    (37, GOOD[:-1], ["cut short", "download it again"]),
    (37, GOOD[:40], ["cut short", "its header needs"]),
    (37, GOOD + b"\0", ["has 1 bytes after its last tensor"]),
    (38, _duplicate(), ["'m.hada_w1_b' stands twice"]),
    (39, packed({"__metadata__": {"a": "x" * 100_000_000}}), ["has a header of 1000000", "100000000", "less metadata"]),
    (40, _tiny(20_001), ["holds 20001 tensors", "20000"]),
    # Beyond the rows: what the container itself may get wrong.
    (37, packed(b"{not json"), ["not valid JSON"]),
    (37, packed(b"{" + b'"a":{' * 100_000), ["not valid JSON"]),
    (37, packed({"a.alpha": described("F16", [2], 0, 2)}, b"\0\0"), ["'a.alpha'", "needs 4 bytes", "gives it 2"]),
    (37, packed({"a.alpha": described("F16", [-1], 0, 2)}, b"\0\0"), ["'a.alpha'", "not described"]),
    (37, packed({"a.alpha": described("F16", [1], 2, 4)}, b"\0" * 4), ["'a.alpha'", "leaves a hole"]),
    (37, packed({"a.alpha": described("F16", [1], 0, 2), "b.alpha": described("F16", [1], 1, 3)}, b"\0" * 3),
     ["'b.alpha'", "overlaps"]),
    (37, packed({"a.alpha": described("F99", [1], 0, 2)}, b"\0\0"), ["dtype F99"]),
    (37, packed({"__metadata__": {"a": 1}, "a.alpha": described("F16", [], 0, 2)}, b"\0\0"),
     ["metadata", "other than strings"]),
    (36, file_bytes({"model.diffusion_model.out.weight": torch.ones(2)}),
     ["no LoHa or LoRA", "looks like a checkpoint"]),
    (31, file_bytes(flat() | {"m.lora_up.weight": torch.ones(6, 1)}),
     ["module 'm'", "LoHa factors and also 'lora_up.weight'"]),
    (21, file_bytes(flat() | {"m.hada_w1_a": torch.ones(6)}), ["hada_w1_a has shape (6,)"]),
]


@pytest.mark.parametrize(("row", "content", "expected"), REJECTED, ids=_row)
def test_rejects(tmp_path, row, content, expected):
    path = tmp_path / "some file.safetensors"
    path.write_bytes(content)
    with pytest.raises(FileError) as raised:
        read(path)
    text = str(raised.value)
    assert text.startswith("some file.safetensors: ")
    assert [part for part in expected if part not in text] == [], text
    assert len(text) < 600 and "\n" not in text


ACCEPTED = [
    (5, flat(rank=2, rank2=3, alpha=4.0), lambda m: (m.scale, m.w2_b.shape[0]) == (2.0, 3)),
    (7, flat(alpha=None), lambda m: m.alpha is None and m.scale == 1.0),
    (9, flat(alpha=1e30), lambda m: m.alpha == float(torch.tensor(1e30))),
    (11, flat(alpha=torch.tensor([3.0])), lambda m: m.alpha == 3.0),
    (13, flat(alpha=torch.tensor(3, dtype=torch.int8)), lambda m: m.alpha == 3.0),
    (13, flat(alpha=torch.tensor(16)), lambda m: m.alpha == 16.0),
    (13, flat(alpha=torch.tensor(3.0).bfloat16()), lambda m: m.alpha == 3.0),
    (13, flat(alpha=torch.tensor(3.0).to(torch.float8_e4m3fn)), lambda m: m.alpha == 3.0),
    (18, flat(dtype=torch.bfloat16), lambda m: m.w1_a.dtype == torch.bfloat16),
    (18, flat(dtype=torch.float32), lambda m: m.w1_a.dtype == torch.float32),
    (19, flat(dtype=torch.float8_e4m3fn), lambda m: m.w1_a.dtype == torch.float8_e4m3fn),
    (19, flat(dtype=torch.float8_e5m2), lambda m: m.w1_a.dtype == torch.float8_e5m2),
    (27, flat(out=20_000, in_=20_000, rank=1), lambda m: m.delta_shape == (20_000, 20_000)),
    (33, flat() | {"m.dora_scale": torch.ones(99)}, lambda m: m.dora_scale.shape == (99,)),
]


@pytest.mark.parametrize(("row", "tensors", "holds"), ACCEPTED, ids=_row)
def test_accepts(tmp_path, row, tensors, holds):
    path = tmp_path / "a.safetensors"
    path.write_bytes(file_bytes(tensors))
    loha = read(path)
    assert holds(loha.modules["m"])
    assert len(loha) == 1 and loha.notes == ()


@pytest.mark.parametrize(("alpha", "note"), [(0.0, "2 modules have alpha 0 and change nothing (first: 'a')."),
                                             (-1.0, "2 modules have a negative alpha")])
def test_row_10_zero_and_negative_alpha_are_noted_once(tmp_path, alpha, note):
    (tmp_path / "a.safetensors").write_bytes(file_bytes(flat("a", alpha=alpha) | flat("b", alpha=alpha)))
    loha = read(tmp_path / "a.safetensors")
    assert len(loha.modules) == 2 and len(loha.notes) == 1 and loha.notes[0].startswith(note)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64,
                                   torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_rows_14_15_find_one_bad_number_anywhere(tmp_path, dtype, value):
    tensors = flat("a", out=67, in_=53, rank=3, dtype=dtype)
    for name, place in (("a.hada_w1_a", 0), ("a.hada_w1_b", 100), ("a.hada_w2_b", 158)):
        spoilt = tensors[name].float().clone()
        spoilt.view(-1)[place] = value
        spoilt = spoilt.to(dtype)
        if spoilt.float().isfinite().all():  # a cast that saturates: nothing to find
            continue
        (tmp_path / "a.safetensors").write_bytes(file_bytes(tensors | {name: spoilt}))
        with pytest.raises(FileError, match=f"'{name}' holds NaN or infinity"):
            read(tmp_path / "a.safetensors")


def test_rows_31_32_other_kinds_come_untouched_and_are_counted(tmp_path):
    others = {
        "lora.lora_up.weight": torch.ones(4, 2), "lora.lora_down.weight": torch.ones(2, 4),
        "lora.alpha": torch.tensor(2.0),
        "kron.lokr_w1": torch.ones(2, 2), "kron.lokr_w2": torch.ones(2, 2),
        "d.diff": torch.ones(3), "d.diff_b": torch.ones(3), "n.w_norm": torch.ones(3), "n.b_norm": torch.ones(3),
        "s.set_weight": torch.ones(3), "x.lora_A.weight": torch.ones(2, 4), "y.lora.up.weight": torch.ones(4, 2),
        "g.a1.weight": torch.ones(2, 2), "strange.thing": torch.ones(1), "nodot": torch.ones(1),
    }
    (tmp_path / "a.safetensors").write_bytes(file_bytes(flat() | others))
    loha = read(tmp_path / "a.safetensors")
    assert list(loha.modules) == ["m"]
    found = {tensor_name(name, suffix): tensor
             for name, tensors in loha.others.items() for suffix, tensor in tensors.items()}
    assert found.keys() == others.keys()
    assert all(torch.equal(found[key], others[key]) for key in others)
    assert loha.others["lora"].keys() == {"lora_up.weight", "lora_down.weight", "alpha"}
    assert len(loha) == 1 + 10
    assert loha.notes == (
        "1 module replaces a weight outright (set_weight), whatever the strength (first: 's').",
        "2 modules are of no known kind (first: 'strange').",
    )


def test_a_bias_may_stand_beside_a_loha(tmp_path):
    """ComfyUI's trainer writes `x.hada_*` and `x.diff_b` for every layer that has a bias."""
    (tmp_path / "a.safetensors").write_bytes(file_bytes(flat() | {"m.diff_b": torch.ones(6)}))
    loha = read(tmp_path / "a.safetensors")
    assert list(loha.modules) == ["m"] and list(loha.others["m"]) == ["diff_b"]


def test_an_alpha_alone_is_refused_by_name(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(file_bytes(flat() | {"lone.alpha": torch.tensor(1.0)}))
    loha = read(tmp_path / "a.safetensors")
    assert dict(loha.refused) == {"lone": "it holds alpha but no factors"} and len(loha) == 2


@pytest.mark.parametrize(("name", "reason"), [
    ("n" * 1_000_000, "its name has 1000000 characters"),
    ("a\0b", "its name holds control or text-direction"),
    ("a\u202eb", "its name holds control or text-direction"),
    ("a\nb", "its name holds control or text-direction"),
    ("a\ud800b", "its name holds control or text-direction"),
    ("", "its name is empty"),
])
def test_row_41_unusable_names_are_refused_and_escaped(tmp_path, name, reason):
    (tmp_path / "a.safetensors").write_bytes(file_bytes(flat() | flat(name)))
    loha = read(tmp_path / "a.safetensors")
    assert list(loha.modules) == ["m"]
    ((found, why),) = loha.refused.items()
    assert found == name and why.startswith(reason)
    (line,) = (line for line in report.binding_lines(bind(loha, [])) if line.startswith("left off") and reason in line)
    assert len(line) < 240 and line.isprintable()
    assert len(name) < 100 or "(1000000 characters)" in line


def test_row_41_thousands_of_long_names_take_no_minute(tmp_path):
    header = {f"{'n' * 300}{i}.alpha": described("F16", [], 2 * i, 2 * i + 2) for i in range(19_000)}
    (tmp_path / "a.safetensors").write_bytes(packed(header, b"\0" * 38_000))
    assert len(read(tmp_path / "a.safetensors").refused) == 19_000


def test_a_module_of_another_kind_with_nan_is_left_out(tmp_path):
    lora = {"lora.lora_up.weight": torch.full((4, 2), NAN), "lora.lora_down.weight": torch.ones(2, 4)}
    (tmp_path / "a.safetensors").write_bytes(file_bytes(flat() | lora | {"m.diff_b": torch.full((6,), INF)}))
    loha = read(tmp_path / "a.safetensors")
    assert list(loha.modules) == ["m"] and not loha.others and len(loha) == 3
    assert dict(loha.refused) == {"lora": "its lora_up.weight holds NaN or infinity",
                                  "m (bias)": "its diff_b holds NaN or infinity"}


@pytest.mark.parametrize("name", [
    "../x", "a/../../x", "/etc/x", "C:\\x", "C:x", "\\\\server\\share\\x", "//server/share/x", "CON", "con.safetensors",
    "a/nul", "COM1.txt", "lpt9", "", ".", "a//b", "a/", "x./y", " x", "x /y", "a\0b", "a\nb", "a\u202eb", "a:b",
    "what?", "n" * 300, "ü" * 150, ".hidden", "a\ud800b",
    "x ", "x.", "x ./y", "x .safetensors", "x..SAFETENSORS", "a/x\u3000", "x\u00a0", "x. ",
])
def test_row_42_names_that_lead_out_or_are_none_on_some_system(tmp_path, name):
    with pytest.raises(FileError, match="cannot be a file name: .* Give a plain name"):
        resolve_name(tmp_path, name)


@pytest.mark.parametrize(("name", "parts"), [
    ("x", ("x.safetensors",)), ("x.safetensors", ("x.safetensors",)), ("a/b\\c", ("a", "b", "c.safetensors")),
    ("シャニマス v2.1", ("シャニマス v2.1.safetensors",)), ("console", ("console.safetensors",)),
])
def test_row_42_plain_names_pass(tmp_path, name, parts):
    assert resolve_name(tmp_path, name) == tmp_path.joinpath(*parts)


def test_row_42_a_linked_subfolder_does_not_lead_out(tmp_path):
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras" / "away").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(FileError, match="leads out of its folder through a link"):
        resolve_name(tmp_path / "loras", "away/x")


def test_row_43_read_through_a_symlink_but_do_not_write_through_one(tmp_path):
    (tmp_path / "real.safetensors").write_bytes(GOOD)
    link = tmp_path / "link.safetensors"
    link.symlink_to(tmp_path / "real.safetensors")
    loha = read(link)
    for overwrite in (False, True):
        with pytest.raises(FileError, match="link.safetensors: is a symbolic link, which is not written through"):
            save(loha, link, overwrite=overwrite)
    assert (tmp_path / "real.safetensors").read_bytes() == GOOD and link.is_symlink()


def _fifo(path):
    os.mkfifo(path)


def _socket(path):
    os.chdir(path.parent)  # the address of a socket is short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes or sockets in folders")
@pytest.mark.parametrize(("make", "kind"), [(os.mkdir, "a folder"), (_fifo, "a named pipe"), (_socket, "a socket"),
                                            (lambda path: path.symlink_to("/dev/zero"), "a device")])
def test_row_44_not_a_file_at_all(tmp_path, monkeypatch, make, kind):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "a.safetensors")
    with pytest.raises(FileError, match=f"a.safetensors: is {kind}, where a file was expected"):
        read(tmp_path / "a.safetensors")


def test_row_36_a_zip_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.safetensors", "w") as archive:
        archive.writestr("archive/data.pkl", "x" * 1000)
    with pytest.raises(FileError, match="looks like a zip archive"):
        read(tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["missing.safetensors", "a\0b", "n" * 300, "missing/x.safetensors"])
def test_row_46_a_file_that_is_not_there(tmp_path, name):
    with pytest.raises(FileError, match="cannot be read .*; check the name and the permissions"):
        read(f"{tmp_path}/{name}")


@pytest.mark.skipif(os.name == "nt", reason="permissions are others on Windows")
def test_row_46_a_file_that_may_not_be_read(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(GOOD)
    path.chmod(0)
    root = os.geteuid() == 0
    if root:  # root may read anything: be somebody else meanwhile
        os.seteuid(65534)
    try:
        with pytest.raises(FileError, match="a.safetensors: cannot be read .Permission denied.; check"):
            read(path)
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize("happening", ["truncate", "rewrite", "replace", "delete"])
def test_row_45_a_file_that_changes_while_it_is_read(tmp_path, happening):
    path = tmp_path / "a.safetensors"
    content = file_bytes(flat(out=200_000, in_=200_000, rank=2) | {"m.diff_b": torch.zeros(2_000_000)})
    other = tmp_path / "other"
    stop = threading.Event()

    def disturb():
        while not stop.is_set():
            if happening == "truncate":
                os.truncate(path, len(content) // 3)
                os.truncate(path, len(content))
            elif happening == "rewrite":
                path.write_bytes(content)
            elif happening == "replace":
                other.write_bytes(content)
                os.replace(other, path)
            else:
                path.unlink(missing_ok=True)
                path.write_bytes(content)
            time.sleep(0.001)

    path.write_bytes(content)
    disturber = threading.Thread(target=disturb)
    disturber.start()
    outcomes = []
    try:
        for _ in range(15):
            try:
                outcomes.append(read(path))
            except FileError as error:
                outcomes.append(str(error))
    finally:
        stop.set()
        disturber.join()
    assert len(outcomes) == 15
    for outcome in outcomes:
        if isinstance(outcome, Loha):
            assert outcome.modules["m"].delta_shape == (200_000, 200_000)
        else:
            assert outcome.startswith("a.safetensors: ")


MIXED = file_bytes(flat() | tucker("t") | flat("f", dtype=torch.float8_e5m2) | {"l.lora_up.weight": torch.ones(3, 1)},
                   {"ss_output_name": "x"})


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.integers(0, len(MIXED) - 1), st.integers(0, 255)), max_size=6),
       length=st.one_of(st.just(len(MIXED)), st.integers(0, len(MIXED) + 9)))
def test_any_damage_gives_a_loha_or_a_file_error(tmp_path, flips, length):
    damaged = bytearray(MIXED)
    for place, value in flips:
        damaged[place] = value
    path = tmp_path / "a.safetensors"
    path.write_bytes((bytes(damaged) + b"\0" * 9)[:length])
    try:
        loha = read(path)
    except FileError as error:
        assert str(error).isprintable()
    else:
        assert len(loha) >= 1
