"""AlphaMonitor: its numbers against a plain computation, its outputs, its warnings."""

import copy
import csv
import importlib
import warnings

import pytest
import torch
from torch import nn

from leaky_ext import AlphaMonitor, LearnableLeakyReLU, StraightThroughReLU


def net():
    return nn.Sequential(
        *(nn.Linear(4, 6), LearnableLeakyReLU(6, init=0.1), nn.Linear(6, 6), nn.ReLU(inplace=True)),
        *(nn.Linear(6, 5), StraightThroughReLU(0.2), nn.Linear(5, 2), nn.PReLU(), nn.LeakyReLU(0.3)),
    )


def run(model, monitor, steps, batch=16):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(steps):
        model(torch.randn(batch, 4)).square().mean().backward()
        optimizer.step()
        monitor.step()
        optimizer.zero_grad()


def test_numbers():
    model = net()
    monitor = AlphaMonitor(model)
    x = torch.randn(16, 4)
    hidden = model[0](x)
    model[0].bias.data[2] = -100.0  # a dead unit
    model(x).sum().backward()
    grad = model[1].alpha.grad.clone()
    with torch.no_grad():
        model[1].alpha += torch.arange(6)
    hidden = model[0](x)
    monitor.step()
    rows = {row["name"]: row for row in monitor.rows()}
    assert list(rows) == ["1", "3", "5", "7", "8"] and {row["step"] for row in rows.values()} == {1}
    slopes = rows["1"]
    assert slopes["alpha_min"] == pytest.approx(0.1) and slopes["alpha_max"] == pytest.approx(5.1)
    assert slopes["alpha_mean"] == pytest.approx(2.6) and slopes["grad_norm"] == pytest.approx(grad.norm().item())
    assert slopes["negative"] == pytest.approx((hidden < 0).double().mean().item())
    assert slopes["dead"] == pytest.approx((hidden < 0).all(0).double().mean().item()) and slopes["dead"] >= 1 / 6
    assert rows["3"]["alpha_mean"] == 0.0 and rows["5"]["alpha_mean"] == pytest.approx(0.2)
    assert rows["7"]["alpha_mean"] == pytest.approx(0.25) and rows["8"]["alpha_mean"] == pytest.approx(0.3)
    assert rows["3"]["grad_norm"] != rows["3"]["grad_norm"] and rows["7"]["grad_norm"] > 0


def test_no_step_waits_for_the_device(device):
    model, twin = net().to(device), net()
    twin.load_state_dict(model.state_dict())
    monitor, expected = AlphaMonitor(model, bounds=(-9.0, 9.0)), AlphaMonitor(twin)
    for _ in range(3):
        x = torch.randn(16, 4)
        on_device = x.to(device)
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        try:
            model(on_device).sum().backward()
            monitor.step()
        finally:
            if device == "cuda":
                torch.cuda.set_sync_debug_mode("default")
        twin(x).sum().backward()
        expected.step()
    for a, b in zip(monitor.rows(), expected.rows(), strict=True):
        assert a.pop("name") == b.pop("name")
        assert a == pytest.approx(b, rel=1e-3, nan_ok=True)


def test_channels_of_images_and_one_unit():
    layer = LearnableLeakyReLU(3, channel_dim=-1)
    monitor = AlphaMonitor(layer)
    x = torch.randn(2, 5, 3)
    x[..., 1] = -1.0
    layer(x)
    monitor.step()
    layer(-torch.ones(3))  # 1-D: channel_dim -1 is its only one
    monitor.step()
    first, second = monitor.rows()
    assert first["dead"] == pytest.approx(1 / 3) and second["dead"] == 1.0 and second["negative"] == 1.0


def test_averages_over_calls_and_starts_anew():
    layer = LearnableLeakyReLU()
    monitor = AlphaMonitor(layer)
    for x in (torch.ones(2, 2), -torch.ones(2, 2)):
        layer(x)
    monitor.step()
    layer(torch.ones(2, 2))
    monitor.step()
    monitor.step()  # no forward at all
    first, second, third = monitor.rows()
    assert first["negative"] == first["dead"] == 0.5 and second["negative"] == second["dead"] == 0.0
    assert third["negative"] != third["negative"]


def test_evaluation_is_not_recorded():
    layer = LearnableLeakyReLU()
    monitor = AlphaMonitor(layer)
    layer(torch.ones(2, 2))
    layer.eval()(-torch.ones(2, 2))
    monitor.step()
    assert monitor.rows()[0]["negative"] == 0.0


def test_copies_and_saved_models_are_not_watched(tmp_path):
    model = net()
    monitor = AlphaMonitor(model)
    model(torch.randn(4, 4))
    torch.save(model, tmp_path / "model.pt")
    for twin in (copy.deepcopy(model), torch.load(tmp_path / "model.pt", weights_only=False)):
        nn.init.constant_(twin[0].bias, -100.0)
        twin(torch.randn(4, 4))
    monitor.step()
    assert monitor.rows()[0]["negative"] < 1.0 and monitor.rows()[0]["dead"] < 1.0


def test_input_by_keyword():
    layer = LearnableLeakyReLU()
    monitor = AlphaMonitor(layer)
    layer(input=-torch.ones(2, 2))
    monitor.step()
    assert monitor.rows()[0]["negative"] == 1.0


def test_every_and_remove():
    model = net()
    monitor = AlphaMonitor(model, every=3)
    run(model, monitor, 7)
    assert [row["step"] for row in monitor.rows() if row["name"] == "1"] == [3, 6]
    assert all(row["negative"] == row["negative"] for row in monitor.rows())
    monitor.remove()
    assert not any(module._forward_pre_hooks for module in model.modules())
    with pytest.raises(ValueError, match="every"):
        AlphaMonitor(model, every=0)


def test_bounded_slopes_are_shown_as_used():
    layer = LearnableLeakyReLU(init=0.9, alpha_bounds=(0.0, 0.5))
    monitor = AlphaMonitor(layer, bounds=(0.0, 0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monitor.step()
    assert monitor.rows()[0]["alpha_max"] == 0.5


def test_warns_once_until_the_slope_is_back():
    layer = nn.Sequential(LearnableLeakyReLU(2, init=0.1))
    monitor = AlphaMonitor(layer, bounds=(0.0, 1.0))

    def warned(value):
        layer[0].alpha.data[1] = value
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            monitor.step()
        assert all(w.filename == __file__ for w in caught)
        return [str(w.message) for w in caught]

    assert warned(0.5) == []
    assert warned(1.5) == ["step 2: slope of '0' left the bounds (0.0, 1.0): [0.1, 1.5]"]
    assert warned(1.6) == []
    assert warned(0.5) == []
    assert warned(float("nan")) == ["step 5: slope of '0' is not finite: [nan, nan]"]
    assert warned(0.5) == []
    assert warned(float("inf")) == ["step 7: slope of '0' is not finite: [0.1, inf]"]


def test_warns_without_bounds_only_when_not_finite():
    layer = LearnableLeakyReLU(init=1e30)
    monitor = AlphaMonitor(layer)
    monitor.step()
    nn.init.constant_(layer.alpha, float("-inf"))
    with pytest.warns(UserWarning, match="is not finite"):
        monitor.step()


def test_csv(tmp_path):
    model = net()
    monitor = AlphaMonitor(model)
    run(model, monitor, 3)
    monitor.write_csv(tmp_path / "slopes.csv")
    with open(tmp_path / "slopes.csv", newline="") as file:
        read = list(csv.DictReader(file))
    rows = monitor.rows()
    assert len(read) == len(rows) == 15
    assert list(read[0]) == list(rows[0])
    assert float(read[3]["negative"]) == rows[3]["negative"] and read[3]["name"] == rows[3]["name"]


def test_tensorboard_gets_each_number_once(tmp_path):
    model = net()
    monitor = AlphaMonitor(model)
    written = []

    class Writer:
        def add_scalar(self, tag, value, step):
            written.append((tag, value, step))

    run(model, monitor, 2)
    monitor.write_tensorboard(Writer())
    first = len(written)
    run(model, monitor, 1)
    monitor.write_tensorboard(Writer())
    assert ("1/alpha_mean", monitor.rows()[0]["alpha_mean"], 1) in written
    assert {step for *_, step in written[:first]} == {1, 2} and {step for *_, step in written[first:]} == {3}
    assert all(value == value for _, value, _ in written)


def test_tensorboard_itself(tmp_path):
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    model = net()
    monitor = AlphaMonitor(model)
    run(model, monitor, 2)
    with SummaryWriter(tmp_path) as writer:
        monitor.write_tensorboard(writer)
    accumulator = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(tmp_path)).Reload().Scalars("1/negative")
    assert [event.step for event in events] == [1, 2]
    assert events[0].value == pytest.approx(monitor.rows()[0]["negative"])


def test_plot(tmp_path):
    pytest.importorskip("matplotlib")
    model = net()
    monitor = AlphaMonitor(model)
    run(model, monitor, 5)
    figure = monitor.plot()
    slopes, gradient, negative, dead = figure.axes
    own = [row for row in monitor.rows() if row["name"] == "1"]
    assert slopes.get_lines()[0].get_xydata().tolist() == [[row["step"], row["alpha_mean"]] for row in own]
    assert [line.get_label() for line in negative.get_lines()] == ["1", "3", "5", "7", "8"]
    assert len(gradient.get_lines()) == len(dead.get_lines()) == 5
    figure.savefig(tmp_path / "slopes.png")
    assert (tmp_path / "slopes.png").stat().st_size > 1000


def test_compiled_models_are_watched():
    torch._dynamo.reset()
    model = net()
    twin = net()
    twin.load_state_dict(model.state_dict())
    monitor, expected = AlphaMonitor(model), AlphaMonitor(twin)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for _ in range(3):
        x = torch.randn(16, 4)
        compiled(x).sum().backward(), twin(x).sum().backward()
        monitor.step(), expected.step()
    for a, b in zip(monitor.rows(), expected.rows(), strict=True):
        assert a.pop("name") == b.pop("name")
        assert a == pytest.approx(b, rel=1e-4, nan_ok=True)


def test_a_model_without_activations():
    monitor = AlphaMonitor(nn.Linear(2, 2))
    monitor.step()
    assert monitor.rows() == [] and monitor.plot().axes


@pytest.mark.parametrize("compiled", [False, True])
def test_after_inference_mode(compiled):
    torch._dynamo.reset()
    layer = nn.Sequential(LearnableLeakyReLU())
    monitor = AlphaMonitor(layer)
    call = torch.compile(layer, fullgraph=True, backend="aot_eager") if compiled else layer
    for step in range(3):
        with torch.inference_mode(step == 0):
            call(torch.ones(2, 2))
            monitor.step()
    assert [row["negative"] for row in monitor.rows()] == [0.0] * 3
    elsewhere = nn.Sequential(LearnableLeakyReLU(device="meta"))
    AlphaMonitor(elsewhere)
    for inference in (True, False):
        with torch.inference_mode(inference):  # the sums are made anew on the input's device
            assert elsewhere(torch.ones(2, 2, device="meta")).is_meta


def test_transforms_are_left_out():
    layer = nn.Sequential(LearnableLeakyReLU(4))
    monitor = AlphaMonitor(layer)
    x = torch.randn(3, 4)
    per_example = torch.func.vmap(torch.func.grad(lambda x: layer(x[None]).sum()))(x)
    assert per_example.shape == x.shape
    layer(-torch.ones(3, 4))
    monitor.step()
    assert monitor.rows()[0]["negative"] == 1.0
