"Every test runs with the shapes and types of all annotations checked; tests of bad input switch that off to see the library's own errors."
import os

os.environ.setdefault('MPLBACKEND', 'Agg')

import jaxtyping

jaxtyping.install_import_hook('spice', 'typechecker.check')

import pytest
import torch

@pytest.fixture
def bad_input():
    "No shape checks: the library itself must refuse what is wrong"
    jaxtyping.config.update('jaxtyping_disable', True)
    yield
    jaxtyping.config.update('jaxtyping_disable', False)

@pytest.fixture(autouse=True)
def same_seed():
    "Each test starts from the same random numbers"
    torch.manual_seed(0)
