"""The pose prior: gradients, fitting, foreign files."""
import pickle
import numpy as np
import pytest
import torch
from spice.core import DataError
from spice.people.poses import sample_poses
from spice.prior import PosePrior, fit_prior, load_prior, pose_vectors, read_gmm, save_prior, vector_rotmats

def small(k=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(k, 69, 69, generator=g)*.1
    return PosePrior(torch.randn(k, 69, generator=g), A@A.mT + torch.eye(69), torch.rand(k, generator=g).softmax(0))

def test_energy_against_scipy():
    "Up to a constant, each Gaussian's energy is minus its log density and weight"
    from scipy.stats import multivariate_normal
    prior, x = small(), torch.randn(6, 69)
    ours = prior.energies(x).numpy()
    theirs = np.stack([-multivariate_normal(m.numpy().astype(float), c.numpy().astype(float)).logpdf(x.numpy()) - np.log(float(w))
                       for m, c, w in zip(prior.means, prior.covariances, prior.weights)], 1)
    assert np.ptp(ours - theirs) < 2e-3

def test_gradient():
    prior = small()
    prior = PosePrior(prior.means.double(), prior.covariances.double(), prior.weights.double())
    assert torch.autograd.gradcheck(prior, (torch.randn(3, 69, dtype=torch.float64, requires_grad=True),))

def test_fit_is_a_function_of_poses_and_seed():
    x = pose_vectors(sample_poses(600, seed=2))
    a, b, c = fit_prior(x, 4, seed=1, rounds=8), fit_prior(x, 4, seed=1, rounds=8), fit_prior(x, 4, seed=2, rounds=8)
    assert torch.equal(a.means, b.means) and not torch.equal(a.means, c.means)
    assert abs(float(a.weights.sum()) - 1) < 1e-5

def test_more_rounds_explain_more():
    x = pose_vectors(sample_poses(600, seed=2))
    mean = lambda p: float(-torch.logsumexp(-p.energies(x) , 1).mean() + 69*0)
    assert mean(fit_prior(x, 3, rounds=1)) != mean(fit_prior(x, 3, rounds=20))

def test_vectors_there_and_back():
    poses = sample_poses(50, seed=9)
    assert (vector_rotmats(pose_vectors(poses))[:, 1:] - poses[:, 1:]).abs().max() < 1e-4

def test_the_users_file(tmp_path, bad_input):
    rng = np.random.default_rng(0)
    data = dict(means=rng.normal(size=(8, 69)), covars=np.stack([np.eye(69)*(k + 1) for k in range(8)]), weights=np.full(8, 1/8))
    for protocol in (0, 2, 4):
        (tmp_path/'gmm_08.pkl').write_bytes(pickle.dumps(data, protocol))
        prior = load_prior(tmp_path/'gmm_08.pkl')
        assert prior.name == 'gmm_08' and np.abs(prior.means.numpy() - data['means']).max() < 1e-6
    class Evil:
        def __reduce__(self): return eval, ('1/0',)
    for content, says in ((pickle.dumps(Evil()), 'wants to call'), (pickle.dumps(dict(means=1)), 'lacks covars, weights'), (b'nothing', 'can not be read'),
                          (pickle.dumps(data | dict(covars=np.eye(69))), 'shapes')):
        (tmp_path/'bad.pkl').write_bytes(content)
        with pytest.raises(DataError, match=says): read_gmm(tmp_path/'bad.pkl')

def test_saved_mixture_says_the_same(tmp_path):
    prior, x = load_prior(), pose_vectors(sample_poses(100, seed=4))
    save_prior(prior, tmp_path/'p.npz')
    assert (load_prior(tmp_path/'p.npz')(x) - prior(x)).abs().max() < .05*prior(x).abs().max()

def test_too_few_poses(bad_input):
    with pytest.raises(DataError, match='Give at least 1680'): fit_prior(torch.randn(100, 69))
