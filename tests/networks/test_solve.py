from __future__ import annotations

import pytest
import torch

from romacli.networks.parts.solve import solve_positive_definite


@pytest.mark.parametrize("strict", [True, False])
def test_solution_times_the_matrix_is_the_right_side(strict):
    root = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(0))
    matrix, right = root @ root.mT + torch.eye(5), torch.arange(30.0).view(2, 5, 3)
    torch.testing.assert_close(matrix @ solve_positive_definite(matrix, right, strict=strict), right)


def test_matrix_without_a_factorisation_spoils_its_own_solution_alone():
    matrix = torch.stack([torch.eye(3), torch.diag(torch.tensor([1.0, -1.0, 1.0])), torch.full((3, 3), torch.nan)])
    right = torch.ones(3, 3, 2)
    found = solve_positive_definite(matrix, right, strict=False)
    assert torch.equal(found[0], right[0])
    assert found[1:].isnan().all()
    with pytest.raises(torch.linalg.LinAlgError):
        solve_positive_definite(matrix, right, strict=True)
