"""Modules with alpha_bounds: forward clamps the slope, and training is projected descent."""

import copy

import pytest
import torch
from torch import nn

from leaky_ext import LearnableLeakyReLU, StraightThroughReLU, reference


def bounded(**kwargs):
    return [
        LearnableLeakyReLU(4, init=0.5, alpha_bounds=(0.0, 0.3), **kwargs),
        StraightThroughReLU(0.5, learnable=True, num_parameters=4, alpha_bounds=(0.0, 0.3), **kwargs),
    ]


class TestBounds:
    @pytest.mark.parametrize("module", bounded(), ids=lambda m: type(m).__name__)
    def test_training_uses_clamped_slopes_and_writes_nothing(self, module):
        module = copy.deepcopy(module)
        x = torch.randn(3, 4, requires_grad=True)
        module(x).sum().backward()
        torch.testing.assert_close(x.grad, torch.where(x >= 0, 1.0, 0.3))
        assert module.alpha.tolist() == [0.5] * 4
        grad = x.detach().clamp(max=0).sum(0)  # negative: descent would lead further out
        assert bool((grad <= 0).all()) and not module.alpha.grad.any()
        module.zero_grad()
        (-module(x)).sum().backward()
        torch.testing.assert_close(module.alpha.grad, -grad)
        module.project_()
        torch.testing.assert_close(module.alpha.data, torch.full((4,), 0.3))

    @pytest.mark.parametrize("module", bounded(), ids=lambda m: type(m).__name__)
    def test_eval_uses_them_and_writes_nothing(self, module):
        module = copy.deepcopy(module).eval()
        x = torch.randn(3, 4, requires_grad=True)
        module(x).sum().backward()
        torch.testing.assert_close(x.grad, torch.where(x >= 0, 1.0, 0.3))
        assert module.alpha.tolist() == [0.5] * 4

    @pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop, torch.optim.LBFGS])
    def test_training_is_projected_descent_and_slopes_come_back(self, optimizer):
        module = LearnableLeakyReLU(init=0.2, alpha_bounds=(0.0, 0.3))
        steps = optimizer(module.parameters(), lr=0.05)
        x = -torch.ones(8)

        def train(sign):
            def closure():
                steps.zero_grad()
                loss = sign * module(x).mean()
                loss.backward()
                return loss

            for _ in range(20):
                steps.step(closure)
            module.project_()
            return module.alpha.item()

        assert train(1.0) == pytest.approx(0.3)
        steps = optimizer(module.parameters(), lr=0.05)  # without the first half's momentum
        assert train(-1.0) == 0.0

    def test_equals_projected_sgd_written_out(self):
        module = LearnableLeakyReLU(init=0.1, alpha_bounds=(0.05, 0.15))
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        alpha = torch.tensor([0.1], requires_grad=True)
        for step in range(30):
            x, g = torch.randn(20), torch.randn(20, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            module(x).backward(g)
            optimizer.step()
            (grad,) = torch.autograd.grad(reference.learnable_leaky_relu(x, alpha), alpha, g)
            alpha = (alpha - 0.1 * grad).clamp(0.05, 0.15).detach().requires_grad_()
        module.project_()
        torch.testing.assert_close(module.alpha.data, alpha.data)

    def test_a_module_can_be_used_twice_in_one_graph(self):
        (module, _) = bounded()
        x = torch.randn(3, 4)
        y = module(x)
        (y + module(-y)).sum().backward()
        assert module.alpha.grad is not None

    @pytest.mark.parametrize("index", [0, 1])
    def test_compiles_as_one_graph(self, index):
        module, twin = bounded()[index], bounded()[index]
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
        optimizers = [torch.optim.SGD(m.parameters(), lr=0.01) for m in (module, twin)]
        for step in range(3):
            x = torch.randn(3, 4, generator=torch.Generator().manual_seed(step))
            for run, optimizer in zip((compiled, twin), optimizers, strict=True):
                optimizer.zero_grad()
                run(x).sum().backward()
                optimizer.step()
            torch.testing.assert_close(module.alpha, twin.alpha)

    def test_functional_call_does_not_write(self):
        (module, _) = bounded()
        slopes = torch.full((4,), 0.9)
        x = torch.randn(3, 4)

        def loss(alpha):
            return torch.func.functional_call(module, {"alpha": alpha}, (x,)).sum()

        assert not torch.func.grad(loss)(slopes).any()
        torch.testing.assert_close(torch.func.grad(lambda a: -loss(a))(slopes), -x.clamp(max=0).sum(0))
        assert slopes.tolist() == [pytest.approx(0.9)] * 4 and module.alpha.tolist() == [0.5] * 4

    def test_no_forward_waits_for_the_device(self, device):
        for module in bounded(device=device):
            x = torch.randn(3, 4, device=device)
            if device == "cuda":
                torch.cuda.set_sync_debug_mode("error")
            try:
                module(x).sum().backward()
            finally:
                if device == "cuda":
                    torch.cuda.set_sync_debug_mode("default")
            assert module.alpha.tolist() == [0.5] * 4

    def test_a_slope_that_is_not_a_number_stays_one(self):
        (module, _) = bounded()
        nn.init.constant_(module.alpha, float("nan"))
        assert module(-torch.ones(1, 4)).isnan().all()
