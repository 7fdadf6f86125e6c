"Every test runs with the shapes and types of all annotations checked; tests of bad input switch that off to see the library's own errors."
import os

from fastcore.basics import num_cpus

os.environ.setdefault('MPLBACKEND', 'Agg')
if 'PYTEST_XDIST_WORKER_COUNT' in os.environ: # one of several processes: no more threads than its share of the cores, also in what it starts
    os.environ.setdefault('OMP_NUM_THREADS', str(max(1, num_cpus()//int(os.environ['PYTEST_XDIST_WORKER_COUNT']))))

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
